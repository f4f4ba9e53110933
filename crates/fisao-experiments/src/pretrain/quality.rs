//! What the pre-trained pair can do, measured on scenes it was not trained on.

use std::path::Path;
use std::sync::Arc;

use fisao_align::centring::correct_mentions;
use fisao_align::mentions::MentionScorer;
use fisao_align::objective::Data;
use fisao_align::{RunControl, StopFlag};
use fisao_formats::weights::LoadDtype;
use fisao_models::generation::Sampling;
use fisao_scenes::{Split, World};
use fisao_verifier::calibration::auc;
use fisao_verifier::regions::RegionWeights;

use fisao_report::table::percent;
use fisao_runs::Reporter;
use fisao_runs::bundle::{Policy, load_verifier};
use fisao_runs::device::cpu;
use fisao_runs::score_settings::ScoreSettings;
use fisao_runs::vocabulary::Vocabulary;
use fisao_runs::world::{SceneTasks, evaluate, separation};

/// Scenes of the validation split that are looked at.
const SCENES: usize = 256;

/// Longest caption, tokens.
const MAX_NEW_TOKENS: usize = 96;

/// Measures the pair in `folder` ; one line for each quantity.
pub(super) fn report(
    folder: &Path,
    world: &World,
    seed: u64,
    stop: &StopFlag,
    reporter: &Reporter,
) -> anyhow::Result<Vec<String>> {
    let policy = Policy::load(&folder.join("llava"), None, LoadDtype::F32, &cpu(), reporter)?;
    let mut verifier = load_verifier(
        &folder.join("clip"),
        ScoreSettings::default(),
        LoadDtype::F32,
        &cpu(),
        reporter,
    )?
    .verifier;
    verifier.set_weights(RegionWeights::default());
    let scenes = SceneTasks {
        world,
        split: Split::Validation,
        seed,
        count: SCENES,
        policy: &policy,
        views: None,
        all_prompts: false,
        answers: Data::Sampled,
    };
    let typical = separation(&scenes, &mut verifier)?;
    let phase = reporter.phase("measure", 2 * SCENES as u64);
    let vocabulary = Vocabulary::of_world().for_mentions()?;
    let mut scorer =
        MentionScorer { tokenizer: Arc::clone(&policy.tokenizer), vocabulary, verifier };
    let (tasks, truth) = scenes.labelled()?;
    let mut lines = vec![format!("AUC, present against absent objects of the theme  {typical:.3}")];
    for (name, temperature) in [("greedy", 0.0), ("sampled", 1.0)] {
        let sampling = Sampling { max_new_tokens: MAX_NEW_TOKENS, temperature, seed };
        let advance = |done| phase.advance(done as u64);
        let control = RunControl::new(&advance).until(stop);
        let evaluation = evaluate(&policy.model, &mut scorer, &tasks, &truth, &sampling, control)?;
        let truths = correct_mentions(&evaluation.captions, &scorer.vocabulary, &truth);
        let class = |wanted: bool| -> Vec<f64> {
            let scores = evaluation.captions.iter().flat_map(|caption| &caption.scores);
            let pairs = scores.zip(&truths);
            pairs.filter(|(_, is)| **is == wanted).map(|(score, _)| *score).collect()
        };
        let (correct, wrong) = (class(true), class(false));
        let own = if correct.is_empty() || wrong.is_empty() {
            "none".to_owned()
        } else {
            format!("{:.3}", auc(&correct, &wrong))
        };
        let chair = &evaluation.chair;
        lines.push(format!(
            "{name}: CHAIR_I {} %, CHAIR_S {} %, recall {} %, {:.1} tokens, AUC of own mentions {own}",
            percent(chair.chair_i),
            percent(chair.chair_s),
            percent(chair.recall),
            evaluation.mean_length,
        ));
    }
    phase.finish();
    Ok(lines)
}
