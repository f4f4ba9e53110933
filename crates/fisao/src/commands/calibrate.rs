//! `fisao calibrate`: what scores of correct and hallucinated words look like for one model.

use std::collections::BTreeSet;
use std::sync::Arc;

use fisao_align::AlignConfig;
use fisao_align::calibrate::{Supervision, calibrate};
use fisao_align::captions::{Judge, describe_all};
use fisao_align::tasks::TaskSource as _;
use fisao_eval::chair::Rules;
use fisao_formats::documents::write_json;
use fisao_verifier::calibration::UnlabelledFit;
use fisao_verifier::scorer::RegionWeights;

use crate::arguments::CalibrateArguments;
use crate::bundle::{Pair, ScoreSettings, warn_of_photographs};
use crate::calibrations::{Setting, image_digest, look_without_labels};
use crate::ground_truth::{self, Annotations};
use crate::reporter::Reporter;
use crate::tasks::{ImageTasks, checked_images};
use crate::vocabulary::Vocabulary;
use crate::{output, prospects, settings, text_cache};

pub(crate) fn run(arguments: &CalibrateArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let config = settings::resolve(&AlignConfig::default(), &arguments.settings)?;
    let sampling = arguments.sampling.resolve()?;
    let folder = std::slice::from_ref(&arguments.images);
    let images = checked_images(folder, &arguments.damaged, reporter)?;
    let device = arguments.pair.model.device.open(reporter)?.device;
    let score = ScoreSettings::of_run(&config);
    let Pair { policy, verifier: loaded, views } =
        Pair::from_arguments(&arguments.pair, score, &device, reporter)?;
    let embedded = policy.is_embedded();
    warn_of_photographs(embedded, images.iter().map(|image| image.size), reporter);
    let words = Vocabulary::from_arguments(&arguments.vocabulary, embedded, None)?;
    let truth = match &arguments.annotations {
        Some(path) => {
            let (files, vocabulary) = (std::slice::from_ref(path), words.for_chair()?);
            let truth = ground_truth::read(files, Rules::Strict, &vocabulary, reporter)?;
            Some(Annotations::new(truth))
        }
        None => None,
    };
    let setting = Setting { verifier: &loaded, vocabulary: &words };
    let vocabulary = words.for_mentions()?;
    let mut verifier = loaded.verifier.clone();
    text_cache::learn(&loaded, &mut verifier, &vocabulary, reporter)?;
    let mut judge = Judge { tokenizer: Arc::clone(&policy.tokenizer), vocabulary, verifier };
    let source = ImageTasks::new(&policy, images, &arguments.prompt)?.with_verifier(views);
    policy.check_length(source.longest_prompt(), sampling.max_new_tokens)?;
    let truth: Option<Vec<BTreeSet<String>>> = truth
        .as_ref()
        .map(|truth| (0..source.count()).map(|at| truth.objects_of(&source.id(at))).collect())
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
    let views;
    let supervision = if let Some(truth) = &truth {
        Supervision::Annotations(truth)
    } else {
        let model = &policy.model;
        views =
            look_without_labels(model, &judge, &source, &captions, length, &sampling, reporter)?;
        Supervision::None(&views)
    };
    let mut calibration = calibrate(&captions, &seen, &mut judge, supervision)?;
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
        let shares = if patches > 0.0 {
            format!(
                "{:.0} % whole image, {:.0} % best patch",
                100.0 * (1.0 - patches),
                100.0 * patches
            )
        } else {
            "the whole image alone, as patches do not raise the AUC".to_owned()
        };
        output::line(format!("score.regions = \"auto\": {shares}"))?;
    }
    match prospects::lines(&calibration, &config.reward, None) {
        Ok(lines) => lines.iter().try_for_each(output::line),
        Err(error) => {
            reporter.warn(error, Some("training with this calibration would be refused"));
            Ok(())
        }
    }
}
