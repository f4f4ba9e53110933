//! `fisao calibrate`: what scores of correct and hallucinated mentions look like for one model.

use fisao_align::AlignConfig;
use fisao_runs::calibrate::{CalibrateRequest, calibrate};
use fisao_runs::{Reporter, prospects, settings};
use fisao_verifier::calibration::{Calibration, UnlabelledFit};
use fisao_verifier::regions::RegionWeights;

use crate::arguments::CalibrateArguments;
use crate::{interrupt, output};

pub(crate) fn run(arguments: &CalibrateArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let changes = arguments.settings.changes();
    let request = CalibrateRequest {
        config: settings::resolve(&AlignConfig::default(), &changes, reporter)?,
        pair: arguments.pair.source(),
        device: arguments.pair.model.device.device.unwrap_or_default(),
        images: arguments.images.clone(),
        damaged: arguments.damaged.images(),
        annotations: arguments.annotations.clone(),
        vocabulary: arguments.vocabulary.vocabulary.clone(),
        prompt: arguments.prompt.clone(),
        sampling: arguments.sampling.resolve()?,
        output: arguments.output.clone(),
    };
    let calibration = calibrate(&request, &interrupt::flag, reporter)?;
    print(&calibration)?;
    match prospects::lines(&calibration, &request.config.reward, None) {
        Ok(lines) => lines.iter().try_for_each(output::line),
        Err(error) => {
            reporter.warn(error, Some("training with this calibration would be refused"));
            Ok(())
        }
    }
}

/// Prints what was found.
fn print(calibration: &Calibration) -> anyhow::Result<()> {
    let auc = if calibration.unlabelled.is_some() { "estimated AUC" } else { "AUC" };
    output::line(format!(
        "{auc} {:.3}; correct {:.3} ± {:.3} ({}), hallucinated {:.3} ± {:.3} ({})",
        calibration.auc,
        calibration.mu_correct,
        calibration.sigma_correct,
        calibration.correct,
        calibration.mu_hallucinated,
        calibration.sigma_hallucinated,
        calibration.hallucinated,
    ))?;
    match calibration.unlabelled {
        Some(UnlabelledFit::TwoGaussians) => {
            output::line("without annotations: two normal distributions under the scores")?;
        }
        Some(UnlabelledFit::ThreeViews) => output::line(
            "without annotations: three views of every mention, its score, its log-probability without the image and how \
             many of four other captions agree",
        )?,
        None => {}
    }
    if let Some(RegionWeights { patches }) = calibration.weights {
        let fractions = if patches > 0.0 {
            format!(
                "{:.0} % whole image, {:.0} % best patch",
                100.0 * (1.0 - patches),
                100.0 * patches
            )
        } else {
            "the whole image alone; patches do not raise the AUC, or cost too much to be tried"
                .to_owned()
        };
        output::line(format!("score.regions = \"auto\": {fractions}"))?;
    }
    Ok(())
}
