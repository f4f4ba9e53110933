//! `fisao verify`: which words of given captions are not in their images.

use anyhow::bail;
use fisao_report::escaping::one_line;
use fisao_runs::scorer::ScoredCaption;
use fisao_runs::verify::{CaptionsToVerify, Judged, Sum, Verdict, VerifyRequest, verify};
use fisao_runs::{Refusal, Reporter};
use owo_colors::OwoColorize;

use crate::arguments::{VerifyArguments, VerifyFormat};
use crate::failure::{VerdictFailed, is_closed_pipe};
use crate::{interrupt, output};

pub(crate) fn run(arguments: &VerifyArguments, reporter: &Reporter) -> anyhow::Result<()> {
    for (name, fraction) in
        [("--threshold", Some(arguments.threshold)), ("--fail-above", arguments.fail_above)]
    {
        if fraction.is_some_and(|fraction| !(0.0..=1.0).contains(&fraction)) {
            bail!(Refusal::new(format!("{name} is not a fraction from 0 to 1")));
        }
    }
    if arguments.heat_maps && arguments.format != VerifyFormat::Json {
        let hint = "add --format json, or let --html show them";
        bail!(Refusal::new("--heat-maps are numbers, which text does not show").hint(hint));
    }
    let VerifyArguments { verifying, images, damaged, device, .. } = arguments;
    let captions = CaptionsToVerify::File(arguments.captions.clone());
    let request = VerifyRequest {
        threshold: arguments.threshold,
        found_vocabulary: arguments.found_vocabulary.clone(),
        heat_maps: arguments.heat_maps,
        exact: arguments.exact,
        page: arguments.html.clone().map(|path| (path, arguments.html_captions)),
        ..verifying.request(captions, images, damaged, device)
    };
    let mut reader = Reader::new(arguments);
    let mut each = |verdict: &Verdict<'_>, scored: &ScoredCaption| {
        reader.hear(|| print(arguments.format, verdict, scored))
    };
    let sum = verify(&request, &mut each, &interrupt::flag, reporter)?;
    finish(arguments, &sum, reporter)
}

/// Whoever reads standard output. Once they have seen enough the work goes on where something else comes of it: a page, or an
/// exit code.
struct Reader {
    listens: bool,
    /// Whether the work ends with them.
    alone: bool,
}

impl Reader {
    fn new(arguments: &VerifyArguments) -> Self {
        Self { listens: true, alone: arguments.html.is_none() && arguments.fail_above.is_none() }
    }

    fn hear(&mut self, say: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        if !self.listens {
            return Ok(());
        }
        let said = say();
        let closed = said.as_ref().is_err_and(|error| error.chain().any(is_closed_pipe));
        if closed && !self.alone {
            self.listens = false;
            return Ok(());
        }
        said
    }
}

/// Prints the verdict on a caption.
fn print(
    format: VerifyFormat,
    verdict: &Verdict<'_>,
    scored: &ScoredCaption,
) -> anyhow::Result<()> {
    match format {
        VerifyFormat::Json => output::json(verdict),
        VerifyFormat::Text => {
            let mut judged = verdict.mentions.iter();
            // One for each mention, in the order of the caption.
            let caption = scored.marked(|_| judged.next().map(coloured).unwrap_or_default());
            let caption = caption.replace(['\n', '\r'], " ");
            let image = one_line(verdict.image_id);
            output::line(format!("{image}: {caption}{}", absent(verdict)))
        }
    }
}

/// The word in the colour of its verdict, or of none; a denied one as it is.
fn coloured(judged: &Judged) -> String {
    match judged.hallucinated {
        _ if judged.negated => judged.text.clone(),
        None => judged.text.cyan().to_string(),
        Some(false) => judged.text.green().to_string(),
        Some(true) => judged.text.red().to_string(),
    }
}

/// A line with the words that are not there, for whoever sees no colours; empty if there are none.
fn absent(verdict: &Verdict<'_>) -> String {
    let absent = verdict.mentions.iter().filter(|judged| judged.hallucinated == Some(true));
    let words: Vec<String> = absent
        .filter_map(|judged| Some(format!("{} (p {:.2})", judged.text, judged.p_hallucinated?)))
        .collect();
    if words.is_empty() { String::new() } else { format!("\n  not there: {}", words.join(", ")) }
}

/// Says what was found in all, and fails where that is too much.
fn finish(arguments: &VerifyArguments, sum: &Sum, reporter: &Reporter) -> anyhow::Result<()> {
    let Sum { mentions, hallucinated, .. } = *sum;
    reporter.note(sum.in_words());
    if let Some(most) = arguments.fail_above
        && hallucinated as f64 > most * mentions as f64
    {
        let message = format!(
            "{hallucinated} of {mentions} mentions count as hallucinated, more than the fraction of {most}"
        );
        return Err(VerdictFailed { message }.into());
    }
    Ok(())
}
