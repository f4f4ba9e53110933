//! `fisao calibrate`: what scores of correct and hallucinated words look like for one model.

use std::collections::BTreeSet;
use std::sync::Arc;

use fisao_align::AlignConfig;
use fisao_align::calibrate::calibrate;
use fisao_align::captions::{Judge, describe_all};
use fisao_align::tasks::TaskSource as _;
use fisao_eval::chair::read_ground_truth;
use fisao_formats::documents::{open_text, write_json};
use fisao_verifier::calibration::Labels;

use crate::arguments::CalibrateArguments;
use crate::bundle::{Pair, ScoreSettings};
use crate::calibrations::{Setting, image_digest};
use crate::reporter::Reporter;
use crate::tasks::{ImageTasks, checked_images, objects_of};
use crate::vocabulary::Vocabulary;
use crate::{output, prospects, settings, text_cache};

pub(crate) fn run(arguments: &CalibrateArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let config = settings::resolve(&AlignConfig::default(), &arguments.settings)?;
    let sampling = arguments.sampling.resolve()?;
    let images = checked_images(std::slice::from_ref(&arguments.images), reporter)?;
    let truth = match &arguments.annotations {
        Some(path) => Some(read_ground_truth(open_text("annotations", path)?)?),
        None => None,
    };
    let device = arguments.pair.model.device.open(reporter)?.device;
    let score = ScoreSettings::of_run(&config);
    let Pair { policy, verifier: loaded, views } =
        Pair::from_arguments(&arguments.pair, score, &device, reporter)?;
    let words = Vocabulary::from_arguments(&arguments.vocabulary)?;
    let setting = Setting { verifier: &loaded, vocabulary: &words };
    let vocabulary = words.for_mentions()?;
    let mut verifier = loaded.verifier.clone();
    text_cache::learn(&loaded, &mut verifier, &vocabulary, reporter)?;
    let mut judge = Judge { tokenizer: Arc::clone(&policy.tokenizer), vocabulary, verifier };
    let source = ImageTasks::new(&policy, images, &arguments.prompt)?.with_verifier(views);
    policy.check_length(source.longest_prompt(), sampling.max_new_tokens)?;
    let truth: Option<Vec<BTreeSet<String>>> = truth
        .as_ref()
        .map(|truth| (0..source.count()).map(|at| objects_of(truth, &source.id(at))).collect())
        .transpose()?;
    let progress = reporter.phase("caption", source.count() as u64);
    let advance = |done| progress.advance(done as u64);
    let length = source.longest_prompt() + sampling.max_new_tokens;
    let mut images = Vec::with_capacity(source.count());
    let (captions, seen) = describe_all(
        &policy.model,
        &mut judge,
        &source,
        length,
        &sampling,
        &advance,
        &mut |task| images.push(image_digest(task)),
    )?;
    progress.finish();
    let labels = if truth.is_some() { Labels::Annotations } else { Labels::None };
    let mut calibration = calibrate(&captions, &seen, &mut judge, labels, truth.as_deref())?;
    setting.sign(&mut calibration, &policy, &images, reporter)?;
    write_json(&arguments.output, &calibration)?;
    output::line(format!(
        "AUC {:.3}; correct {:.3} ± {:.3} ({}), hallucinated {:.3} ± {:.3} ({})",
        calibration.auc,
        calibration.mu_correct,
        calibration.sigma_correct,
        calibration.correct,
        calibration.mu_hallucinated,
        calibration.sigma_hallucinated,
        calibration.hallucinated,
    ))?;
    match prospects::lines(&calibration, &config.reward, None) {
        Ok(lines) => lines.iter().try_for_each(output::line),
        Err(error) => {
            reporter.warn(error, Some("training with this calibration would be refused"));
            Ok(())
        }
    }
}
