//! `fisao bench`: how fast this machine does what alignment consists of.

use std::process::{Command, Stdio};

use anyhow::Context as _;
use burn::tensor::Device;
use fisao_experiments::bench::{
    ARITHMETIC, Case, DECODED, MEMORY, Measured, PROMPT, catalogue, chosen, measure,
};
use fisao_runs::{Refusal, Reporter};
use serde::Serialize;

use crate::arguments::{BenchArguments, ReportFormat};
use crate::commands::eval::report;
use crate::{interrupt, output};
use fisao_report::table::{NONE, Table};

/// All there is to say, for programs.
#[derive(Serialize)]
struct Document {
    fisao: &'static str,
    cores: usize,
    /// 10⁹ operations per second of a large f32 product.
    #[serde(skip_serializing_if = "Option::is_none")]
    arithmetic_gflops: Option<f64>,
    /// 10⁹ bytes per second that memory gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_gigabytes_per_second: Option<f64>,
    cases: Vec<Measured>,
}

pub(crate) fn run(arguments: &BenchArguments, reporter: &Reporter) -> anyhow::Result<()> {
    if arguments.list {
        return list(arguments.format);
    }
    let cases = chosen(&arguments.cases, arguments.all).map_err(|name| {
        Refusal::new(format!("no case is called {name}"))
            .hint("fisao bench --list says what there is; the beginning of a name is enough, but not for the heavy cases")
    })?;
    let opened = arguments.device.open(reporter)?;
    if opened.has_card() {
        return Err(Refusal::new("fisao bench does not measure --device cuda")
            .hint("cargo run --release -p fisao-cuda --example time_decoder measures a decoder's shapes on a card")
            .into());
    }
    let device = opened.device;
    let elsewhere = device != Device::flex();
    if let Some(case) = cases.iter().find(|case| elsewhere && !case.portable) {
        let message = format!("{} is measured on the CPU only", case.name);
        let portable = catalogue().into_iter().filter(|case| case.portable);
        let names: Vec<&str> = portable.map(|case| case.name).collect();
        let hint = format!("on another device there are {}", names.join(", "));
        return Err(Refusal::new(message).hint(hint).into());
    }
    if arguments.ends_with_input {
        end_with_input();
    }
    if arguments.here {
        let [case] = cases.as_slice() else {
            return Err(Refusal::new("--here measures one case").into());
        };
        return output::json(&measure(case, device, arguments.seconds)?);
    }
    // What the CPU and its memory do at best says nothing about another device.
    let ceilings = catalogue().into_iter().filter(is_ceiling);
    let no_ceilings = arguments.no_ceilings || elsewhere;
    let ceilings: Vec<Case> = if no_ceilings { Vec::new() } else { ceilings.collect() };
    let cases: Vec<Case> = cases.into_iter().filter(|case| !is_ceiling(case)).collect();
    let all = ceilings.iter().chain(&cases);
    let phase = reporter.phase("bench", (ceilings.len() + cases.len()) as u64);
    let mut measured = Vec::new();
    for case in all {
        phase.message(case.name);
        measured.push(apart(case, arguments)?);
        phase.advance(1);
    }
    phase.finish();
    let found = |name: &str| measured.iter().find(|one| one.case == name);
    let document = Document {
        fisao: env!("CARGO_PKG_VERSION"),
        cores: fisao_models::parallel::cores(),
        arithmetic_gflops: found(ARITHMETIC).and_then(|one| one.gflops),
        memory_gigabytes_per_second: found(MEMORY).and_then(|one| one.gigabytes_per_second),
        cases: measured,
    };
    match arguments.format {
        ReportFormat::Json => output::json(&document),
        format => report::table(format, &table(&document), &notes(&document)),
    }
}

fn is_ceiling(case: &Case) -> bool {
    [ARITHMETIC, MEMORY].contains(&case.name)
}

/// Measures a case in a process of its own, whose memory is its own.
fn apart(case: &Case, arguments: &BenchArguments) -> anyhow::Result<Measured> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let failed = || format!("cannot start a process for {}", case.name);
    let mut child = Command::new(program)
        .args(["bench", "--here", "--ends-with-input", "--quiet"])
        .args(["--seconds", &arguments.seconds.to_string()])
        .args(arguments.device.device.map(|device| format!("--device={device}")))
        .arg(case.name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(failed)?;
    // However this process ends, the pipe closes with it, and the other one ends, too.
    let _open = child.stdin.take();
    let output = child.wait_with_output().with_context(failed)?;
    if !output.status.success() {
        let status = output.status;
        return Err(Refusal::new(format!("{} was not measured: {status}", case.name))
            .hint(
                "what is printed above says why; a process that was killed may have lacked memory",
            )
            .into());
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} printed something else than its result", case.name))
}

/// Ends this process once whoever started it has ended, as its standard input then does.
fn end_with_input() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        interrupt::abort();
    });
}

fn list(format: ReportFormat) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Listed {
        case: &'static str,
        about: &'static str,
        heavy: bool,
    }
    let cases = catalogue();
    if format == ReportFormat::Json {
        let listed = cases.iter().map(|case| Listed {
            case: case.name,
            about: case.about,
            heavy: case.heavy,
        });
        return output::json(&listed.collect::<Vec<_>>());
    }
    let mut table = Table::new(&["case", "what it does", "when"]);
    for case in &cases {
        table.row([case.name, case.about, if case.heavy { "when named, or --all" } else { "" }]);
    }
    let note = format!(
        "decode-*: prompts of {PROMPT} tokens are read and {DECODED} tokens sampled to each"
    );
    report::table(format, &table, &[note])
}

fn table(document: &Document) -> Table {
    let mut table = Table::new(&[
        "case",
        "per second",
        "unit",
        "ms",
        "shortest",
        "longest",
        "GFLOP/s",
        "of best",
        "GB/s",
        "of best",
        "peak MB",
    ]);
    for one in &document.cases {
        let number = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), rounded);
        let fraction = |value: Option<f64>, best: Option<f64>| match (value, best) {
            (Some(value), Some(best)) => format!("{:.0} %", 100.0 * value / best),
            _ => NONE.to_owned(),
        };
        table.row([
            one.case.clone(),
            rounded(one.rate),
            one.unit.clone(),
            rounded(1e3 * one.seconds),
            rounded(1e3 * one.shortest),
            rounded(1e3 * one.longest),
            number(one.gflops),
            fraction(one.gflops, document.arithmetic_gflops),
            number(one.gigabytes_per_second),
            fraction(one.gigabytes_per_second, document.memory_gigabytes_per_second),
            format!("{:.0}", one.peak_memory_mb),
        ]);
    }
    table
}

fn notes(document: &Document) -> Vec<String> {
    let cores = document.cores;
    let mut notes = vec![format!(
        "{cores} cores; median of the repetitions, each case in a process of its own"
    )];
    if document.arithmetic_gflops.is_some() {
        notes.push(format!("of best: against {ARITHMETIC} and {MEMORY} of this run"));
    }
    notes
}

/// Three figures that matter.
fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
