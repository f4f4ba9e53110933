//! What packagers install beside the program: manual pages and completion scripts; and what a build says of itself.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::fixture::Workplace;

#[test]
fn every_command_has_a_manual_page() {
    let place = Workplace::new();
    place.succeed(&["man", "pages/man1"]);
    let entries = fs::read_dir(place.path("pages/man1")).unwrap();
    let pages: BTreeSet<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for page in ["fisao.1", "fisao-align.1", "fisao-eval-chair.1", "fisao-eval-pope-build.1"] {
        assert!(pages.contains(page), "{page}: {pages:?}");
    }
    assert!(pages.iter().all(|page| !page.contains("help")), "{pages:?}");
    // As many as commands, by what their help lists.
    assert_eq!(pages.len(), commands(&place, &[]), "{pages:?}");
    let chair = fs::read_to_string(place.path("pages/man1/fisao-eval-chair.1")).unwrap();
    assert!(chair.contains(".TH fisao-eval-chair 1"), "{chair}");
    assert!(chair.contains("\\-\\-ids"), "{chair}");
    place.write("file", "");
    let error = place.refuse(&["man", "file"]);
    assert!(error.contains("file"), "{error}");
}

/// A command and all below it.
fn commands(place: &Workplace, path: &[&str]) -> usize {
    let help = place.succeed(&[path, &["--help"]].concat());
    let Some((_, listed)) = help.split_once("\nCommands:\n") else { return 1 };
    let listed = listed.split("\n\n").next().unwrap_or_default();
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    1 + names
        .filter(|name| *name != "help")
        .map(|name| commands(place, &[path, &[name]].concat()))
        .sum::<usize>()
}

#[test]
fn completion_scripts_know_commands_and_options() {
    let place = Workplace::new();
    for (shell, expected) in [
        ("bash", "complete -F _fisao"),
        ("zsh", "#compdef fisao"),
        ("fish", "complete -c fisao"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = place.succeed(&["completions", shell]);
        assert!(script.contains(expected), "{shell}: {script}");
        assert!(script.contains("chair") && script.contains("skip-unknown-images"), "{shell}");
    }
    let error = place.refuse(&["completions", "cmd"]);
    assert!(error.contains("possible values: bash"), "{error}");
}

#[test]
fn bash_completes_by_the_static_script() {
    let place = Workplace::new();
    place.write("fisao.bash", place.succeed(&["completions", "bash"]));
    let completed = |words: &str, current: usize, word: &str| {
        let script = format!(
            "source ./fisao.bash; COMP_WORDS=({words}); COMP_CWORD={current}; _fisao fisao '{word}' ''; \
             echo \"${{COMPREPLY[@]}}\""
        );
        let output =
            Command::new("bash").args(["-c", &script]).current_dir(place.path(".")).output();
        let Ok(output) = output else {
            fisao_testkit::skipped::report_skipped(
                "bash_completes_by_the_static_script",
                "no bash",
            );
            return None;
        };
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(found) = completed("fisao ali", 1, "ali") else { return };
    assert_eq!(found, "align");
    assert_eq!(completed("fisao eval chair --che", 3, "--che").as_deref(), Some("--check"));
}

#[test]
fn shells_can_still_ask_the_program_for_completions() {
    let place = Workplace::new();
    let output = place.command().env("COMPLETE", "bash").output().unwrap();
    let script = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && script.contains("COMPLETE=\"bash\""), "{script}");
}

#[test]
fn version_is_short_by_letter_and_long_by_word() {
    let place = Workplace::new();
    let short = place.succeed(&["-V"]);
    assert_eq!(short, format!("fisao {}\n", env!("CARGO_PKG_VERSION")));
    let long = place.succeed(&["--version"]);
    assert!(long.starts_with(&short), "{long}");
    let line = |start: &str| long.lines().find_map(|line| line.strip_prefix(start)).unwrap().trim();
    let devices: Vec<&str> = line("devices:").split(", ").collect();
    assert_eq!(devices[..2], ["cpu", "cuda"]);
    for (name, built) in [("metal", cfg!(feature = "metal")), ("vulkan", cfg!(feature = "vulkan"))]
    {
        assert_eq!(devices.contains(&name), built, "{long}");
    }
    if cfg!(target_arch = "x86_64") {
        assert!(line("CPU:").starts_with("AVX2 "), "{long}");
    }
    let kernels = line("CPU:").split("kernels use ").nth(1).unwrap().split(';').next().unwrap();
    assert!(["avx512", "avx2", "baseline"].contains(&kernels), "{long}");
}
