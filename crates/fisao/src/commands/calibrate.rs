//! `fisao calibrate`: what scores of correct and hallucinated mentions look like for one model.

use fisao_align::AlignConfig;
use fisao_runs::calibrate::{CalibrateRequest, calibrate};
use fisao_runs::{Reporter, prospects, settings};

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
    prospects::summary(&calibration).iter().try_for_each(output::line)?;
    match prospects::lines(&calibration, &request.config.reward, None) {
        Ok(lines) => lines.iter().try_for_each(output::line),
        Err(error) => {
            reporter.warn(error, Some("training with this calibration would be refused"));
            Ok(())
        }
    }
}
