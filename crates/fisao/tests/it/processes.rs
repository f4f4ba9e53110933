//! Commands of several processes.

use crate::fixture::Workplace;

#[cfg(not(feature = "mpi"))]
#[test]
fn build_without_mpi_refuses_to_be_several_processes() {
    let place = Workplace::new();
    let started = |arguments: &[&str], count: &str| {
        let mut command = place.command();
        command.args(arguments).env("OMPI_COMM_WORLD_SIZE", count).output().unwrap()
    };
    let demo = ["demo", "--output", "run"];
    let several = started(&demo, "3");
    assert_eq!(several.status.code(), Some(1));
    let said = String::from_utf8_lossy(&several.stderr);
    assert!(said.contains("3 processes were started"), "{said}");
    assert!(said.contains("--features mpi"), "{said}");
    assert!(!place.path("run").exists(), "nothing was done");
    let mut by_slurm = place.command();
    by_slurm.args(demo).envs([("PMIX_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "4")]);
    let said = String::from_utf8_lossy(&by_slurm.output().unwrap().stderr).into_owned();
    assert!(said.contains("4 processes were started"), "{said}");
    let one = started(&["completions", "bash"], "1");
    assert!(one.status.success(), "{}", String::from_utf8_lossy(&one.stderr));
    fisao_testkit::skipped::report_skipped(
        "tests of several processes",
        "no MPI: this is a build without the feature mpi",
    );
}

#[test]
fn exact_is_refused_where_nothing_would_be() {
    let place = Workplace::new();
    let arguments = ["caption", "--images", "x.png", "--exact", "--guided", "0.8"];
    let said = String::from_utf8_lossy(&place.run(&arguments).stderr).into_owned();
    assert!(said.contains("'--exact' cannot be used with"), "{said}");
}

#[cfg(all(unix, feature = "mpi"))]
mod with_mpi {
    use std::fs;
    use std::process::{Command, Output, Stdio};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use fisao_testkit::skipped::report_skipped;

    use super::Workplace;
    use crate::resume::{assert_same, begin, go_on, recorded, workplace};

    /// Starts a command as several processes, each through a script of `sh` that has `"$@"` for it; `None` where there is no mpirun.
    fn start(
        place: &Workplace,
        count: usize,
        script: &str,
        arguments: &[String],
    ) -> Option<Command> {
        let found = Command::new("mpirun").arg("--version").stdout(Stdio::null()).status();
        if found.is_err() {
            report_skipped("tests of several processes", "no MPI: there is no mpirun");
            return None;
        }
        let fisao = place.command();
        let mut command = Command::new("mpirun");
        command.args(["--oversubscribe", "--bind-to", "none", "-n", &count.to_string()]);
        command.args(["sh", "-c", script, "sh"]).arg(fisao.get_program()).args(arguments);
        command.current_dir(fisao.get_current_dir().expect("a folder"));
        for (name, value) in fisao.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // Containers run everything as root.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        Some(command)
    }

    const PLAIN: &str = r#"exec "$@""#;

    fn said(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn exact(output: &str) -> Vec<String> {
        let mut arguments = begin(output);
        arguments.extend(["--set", "align.exact=true"].map(str::to_owned));
        arguments
    }

    #[test]
    fn exact_runs_are_the_same_to_the_byte_for_any_number_of_processes_and_threads() {
        let place = workplace();
        for (count, script) in [
            (1, PLAIN),
            (2, PLAIN),
            (4, PLAIN),
            // One thread for everything that the kernels share.
            (2, r#"RAYON_NUM_THREADS=1 exec "$@""#),
        ] {
            let name = if count == 1 { "whole" } else { "cut" };
            let Some(mut command) = start(&place, count, script, &exact(name)) else { return };
            let output = command.output().unwrap();
            assert!(output.status.success(), "{count} processes: {}", said(&output));
            if name == "cut" {
                assert_same(&place, "whole", "cut");
                fs::remove_dir_all(place.path("cut")).unwrap();
            }
        }
        // Alone, without MPI.
        assert!(place.command().args(exact("cut")).output().unwrap().status.success());
        assert_same(&place, "whole", "cut");
    }

    #[test]
    fn exact_captions_are_the_same_for_any_number_of_processes() {
        let place = Workplace::furnished();
        let commands = [
            "caption --model llava --images pictures --max-new-tokens 12 --temperature 1 --exact",
            "eval chair --world train --count 21 --exact",
        ];
        for command in commands {
            let arguments: Vec<String> = command.split(' ').map(str::to_owned).collect();
            let alone = place.command().args(&arguments).output().unwrap();
            assert!(alone.status.success(), "{}", said(&alone));
            for count in [2, 5] {
                let Some(mut several) = start(&place, count, PLAIN, &arguments) else { return };
                let several = several.output().unwrap();
                assert!(several.status.success(), "{count} processes: {}", said(&several));
                let [alone, several] =
                    [&alone, &several].map(|of| String::from_utf8_lossy(&of.stdout));
                assert_eq!(alone, several, "{count} processes: {command}");
            }
        }
    }

    #[test]
    fn verdicts_and_chosen_captions_are_the_same_for_any_number_of_processes() {
        let place = Workplace::new();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let printed = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        let run = |command: &str| {
            let output = place.command().args(words(command)).output().unwrap();
            assert!(output.status.success(), "{}", said(&output));
            printed(&output)
        };
        run("scenes export scenes --split calibration --count 96");
        run(
            "calibrate --images scenes/images --annotations scenes/instances.json --output calibration.json",
        );
        fs::write(
            place.path("captions.jsonl"),
            run("caption --images scenes/images --format json"),
        )
        .unwrap();
        for command in [
            "verify --captions captions.jsonl --images scenes/images --format json --exact",
            "verify --captions captions.jsonl --images scenes/images --format json --exact --calibration calibration.json",
            "eval chair --world train --count 9 --exact --temperature 0.7 --best-of 3 --calibration calibration.json",
            // Only the images are looked at by all.
            "eval chair --world train --count 9 --guided 0.8 --calibration calibration.json",
        ] {
            let alone = run(command);
            assert!(!alone.is_empty());
            for count in [2, 5] {
                let Some(mut several) = start(&place, count, PLAIN, &words(command)) else {
                    return;
                };
                let several = several.output().unwrap();
                assert!(several.status.success(), "{count} processes: {}", said(&several));
                assert_eq!(printed(&several), alone, "{count} processes: {command}");
            }
        }
    }

    #[test]
    fn run_whose_process_is_killed_ends_soon_and_resumes_with_another_number_of_processes() {
        let place = workplace();
        let Some(mut whole) = start(&place, 2, PLAIN, &exact("whole")) else { return };
        assert!(whole.output().unwrap().status.success());
        // Each process leaves its number behind, to be killed by.
        let script = r#"echo $$ > process-$OMPI_COMM_WORLD_RANK; exec "$@""#;
        let mut command = start(&place, 3, script, &exact("cut")).expect("it was there");
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while recorded(&place, "cut") < 4 {
            assert!(started.elapsed() < Duration::from_mins(2), "no progress");
            sleep(Duration::from_millis(2));
        }
        let process = fs::read_to_string(place.path("process-2")).unwrap();
        let killed = Instant::now();
        assert!(Command::new("kill").args(["-KILL", process.trim()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(!status.success() || recorded(&place, "cut") == 12, "it ended well");
        assert!(
            killed.elapsed() < Duration::from_secs(10),
            "it went on for {:?}",
            killed.elapsed()
        );
        let mut resumed = start(&place, 4, PLAIN, &go_on("cut")).expect("it was there");
        let output = resumed.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_same(&place, "whole", "cut");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn process_that_misses_a_file_is_named_with_it() {
        let place = workplace();
        fs::create_dir(place.path("elsewhere")).unwrap();
        let script = r#"[ $OMPI_COMM_WORLD_RANK != 1 ] || cd elsewhere; exec "$@""#;
        // A path that leads each process to somewhere else.
        let mut arguments = begin("run");
        for argument in arguments.iter_mut().filter(|argument| *argument == "clip") {
            *argument = "/proc/self/cwd/clip".to_owned();
        }
        let Some(mut command) = start(&place, 2, script, &arguments) else { return };
        let started = Instant::now();
        let output = command.output().unwrap();
        let said = said(&output);
        assert!(!output.status.success());
        assert!(said.contains("process 1: ") && said.contains("clip"), "{said}");
        assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
    }

    #[test]
    fn command_that_shares_nothing_refuses_to_be_several_processes() {
        let place = workplace();
        let arguments = ["inspect", "clip"].map(str::to_owned);
        let Some(mut command) = start(&place, 2, PLAIN, &arguments) else { return };
        let output = command.output().unwrap();
        assert!(!output.status.success());
        assert!(said(&output).contains("does not share its work"), "{}", said(&output));
    }
}
