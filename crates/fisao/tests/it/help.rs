//! What every command says about itself.

use crate::fixture::Workplace;

#[test]
fn help_of_every_command_matches_the_snapshot() {
    let place = Workplace::new();
    let commands: [&[&str]; 37] = [
        &[],
        &["caption"],
        &["score"],
        &["serve"],
        &["verify"],
        &["calibrate"],
        &["align"],
        &["compare"],
        &["study"],
        &["study", "verifier"],
        &["study", "theory"],
        &["eval"],
        &["eval", "chair"],
        &["eval", "pope"],
        &["eval", "pope", "build"],
        &["eval", "captions"],
        &["eval", "detection"],
        &["eval", "mme"],
        &["eval", "diff"],
        &["eval", "amber"],
        &["eval", "science-qa"],
        &["eval", "gqa"],
        &["eval", "seed-bench"],
        &["eval", "mmbench"],
        &["eval", "mm-vet"],
        &["eval", "mm-hal"],
        &["config"],
        &["runs"],
        &["bench"],
        &["inspect"],
        &["merge"],
        &["pretrain"],
        &["scenes"],
        &["scenes", "export"],
        &["demo"],
        &["man"],
        &["completions"],
    ];
    for command in commands {
        let name = if command.is_empty() { "fisao".to_owned() } else { command.join("-") };
        let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        insta::assert_snapshot!(format!("help-{name}"), place.succeed(&arguments));
    }
}

#[test]
fn invalid_command_lines_are_user_errors() {
    let place = Workplace::new();
    let error = place.refuse(&["captio"]);
    assert!(error.contains("a similar subcommand exists: 'caption'"), "{error}");
    let error = place.refuse(&["caption"]);
    assert!(error.contains("--images <PATH>"), "{error}");
    let error = place.refuse(&["eval", "chair", "--captions", "c.json"]);
    assert!(error.contains("--annotations <FILE>"), "{error}");
}
