//! What a verifier can buy, in words: printed before anything is trained.

use fisao_align::AlignConfig;
use fisao_verifier::calibration::{Calibration, Prospects, Statistic, UnlabelledFit};
use fisao_verifier::regions::RegionWeights;
use fisao_verifier::rewards::{RewardConfig, RewardRule};

/// Distance of an object's precision from the break-even one at which the number of mentions is told.
const DISTANCE: f64 = 0.1;

/// AUC below which nothing but large numbers of captions helps.
const WEAK: f64 = 0.7;

/// What to expect of aligning with this calibration, a line a fact. `captions` is how many a run would learn from.
///
/// # Errors
/// The reward does not fit the calibration; the corrected one does not where the verifier tells next to nothing.
pub fn lines(
    calibration: &Calibration,
    reward: &RewardConfig,
    captions: Option<usize>,
) -> anyhow::Result<Vec<String>> {
    let rule = RewardRule::new(reward, calibration)?;
    let mut lines = Vec::new();
    if !rule.needs_sentence_score() {
        lines.push(pays_from(rule.break_even()));
    }
    let prospects = match calibration.prospects(Statistic::default()) {
        Ok(prospects) => prospects,
        Err(error) => {
            lines.push(format!("what training can reach cannot be estimated: {error}"));
            return Ok(lines);
        }
    };
    lines.extend(frontier(&prospects));
    lines.push(format!(
        "one caption teaches as much as 1/{:.1} of one with annotations; to tell whether an object's precision is {DISTANCE} \
         off the break-even one takes {:.0} mentions of it (95 % confidence)",
        prospects.sample_factor,
        prospects.mentions_needed(DISTANCE).ceil(),
    ));
    if let Some(captions) = captions {
        lines.push(format!(
            "this run learns from {captions} captions, worth about {:.0} annotated ones",
            captions as f64 / prospects.sample_factor
        ));
    }
    if calibration.auc < WEAK {
        lines.push(format!(
            "with an AUC of {:.2} expect a small effect: raise align.iterations, and look for a stronger signal with `fisao \
             study verifier`",
            calibration.auc
        ));
    }
    Ok(lines)
}

/// What a calibration has found, a line a fact: how well the verifier tells correct mentions from hallucinated ones.
pub fn summary(calibration: &Calibration) -> Vec<String> {
    let auc = if calibration.unlabelled.is_some() { "estimated AUC" } else { "AUC" };
    let mut lines = vec![format!(
        "{auc} {:.3}; correct {:.3} ± {:.3} ({}), hallucinated {:.3} ± {:.3} ({})",
        calibration.auc,
        calibration.mu_correct,
        calibration.sigma_correct,
        calibration.correct,
        calibration.mu_hallucinated,
        calibration.sigma_hallucinated,
        calibration.hallucinated,
    )];
    let how = calibration.unlabelled.map(|fit| match fit {
        UnlabelledFit::TwoGaussians => {
            "without annotations: two normal distributions under the scores".to_owned()
        }
        UnlabelledFit::ThreeViews => {
            "without annotations: three views of every mention, its score, its log-probability without the image and how \
             many of four other captions agree"
                .to_owned()
        }
    });
    lines.extend(how);
    lines.extend(calibration.weights.map(|RegionWeights { patches }| {
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
        format!("score.regions = \"auto\": {fractions}")
    }));
    lines
}

/// Says when a run's reward pays no mention at all, or every one: what such a run learns is known before it starts.
pub(crate) fn silence(calibration: &Calibration, config: &AlignConfig) -> Option<String> {
    let rule = RewardRule::new(&config.reward, calibration).ok()?;
    let learns = config.objective.definition().maximises_reward();
    let break_even = rule.break_even();
    let unfair = !(0.0..1.0).contains(&break_even);
    (learns && unfair && !rule.needs_sentence_score()).then(|| pays_from(break_even))
}

fn pays_from(break_even: f64) -> String {
    if break_even >= 1.0 {
        return "no mention pays, however sure the policy is: with this reward and this verifier the best policy is silence; use \
                the corrected form"
            .to_owned();
    }
    if break_even <= 0.0 {
        return "every mention pays, however unsure the policy is: this reward teaches to name everything; use the corrected \
                form"
            .to_owned();
    }
    format!("naming an object pays from a precision of {:.0} % on", 100.0 * break_even)
}

/// What deleting words would reach, as the mark that training should beat.
fn frontier(prospects: &Prospects) -> Option<String> {
    let points: Vec<String> = prospects
        .frontier
        .iter()
        .map(|point| {
            format!(
                "{:.1} % at {:.1} % fewer correct mentions",
                100.0 * point.chair_i,
                100.0 * point.correct_lost
            )
        })
        .collect();
    (!points.is_empty()).then(|| {
        format!(
            "deleting the least likely mentions would take CHAIR_I from {:.1} % to {}; training can do better",
            100.0 * prospects.chair_i,
            points.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use fisao_verifier::calibration::fit_annotated;

    use super::*;

    /// Ten correct scores 1 … 10 and ten hallucinated ones −4 … 5.
    fn calibration() -> Calibration {
        let correct = (1..=10).map(|score| (f64::from(score), true));
        let wrong = (-4..=5).map(|score| (f64::from(score), false));
        let (scores, labels): (Vec<f64>, Vec<bool>) = correct.chain(wrong).unzip();
        fit_annotated(&scores, &labels).unwrap()
    }

    #[test]
    fn prospects_of_a_run_are_described() {
        let text = lines(&calibration(), &RewardConfig::default(), Some(3840)).unwrap().join("\n");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn reward_that_favours_silence_is_reported() {
        let config: RewardConfig = toml::from_str("[form]\nkind = \"log-odds\"").unwrap();
        let text = lines(&calibration(), &config, None).unwrap().join("\n");
        assert!(text.contains("the best policy is silence"), "{text}");
    }
}
