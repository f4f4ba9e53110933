//! Verifier-guided decoding: doubtful mentions leave a response, or are counted.

use fisao_align::RunControl;
use fisao_align::captions::describe;
use fisao_align::encoding::EncodedImages;
use fisao_align::guided::{Guidance, Guide, GuidedConfig, GuidedResponse, sample_guided};
use fisao_align::mentions::MentionScorer;
use fisao_align::sampling::{Request, sample};
use fisao_align::tasks::{Task, TaskSource as _};
use fisao_models::generation::{Generated, Sampling};
use fisao_models::vision_language::VisionLanguageModel;
use fisao_testkit::tiny_policy::{Noise, calibration, models};
use fisao_verifier::calibration::{Calibration, ProbabilityModel};

const GREEDY: Sampling = Sampling { max_new_tokens: 24, temperature: 0.0, seed: 0 };
const SAMPLED: Sampling = Sampling { max_new_tokens: 24, temperature: 1.0, seed: 4 };

struct Setting {
    policy: VisionLanguageModel,
    scorer: MentionScorer,
    tasks: Vec<Task>,
    encoded: EncodedImages,
    /// Under which about half of the mentions are doubtful.
    calibration: Calibration,
}

impl Setting {
    fn new() -> Self {
        let (policy, mut scorer) = models();
        let tasks: Vec<Task> = (0..Noise.count()).map(|at| Noise.task(at).unwrap()).collect();
        let control = RunControl::new(&|_| {});
        let (captions, encoded) =
            describe(&policy, &mut scorer, &tasks, &SAMPLED, control).unwrap();
        let mut scores: Vec<f64> =
            captions.iter().flat_map(|caption| caption.scores.clone()).collect();
        scores.sort_by(f64::total_cmp);
        assert!(scores.len() > 20, "too few mentions to tell");
        // The two classes lie 0.03 below and 0.13 above the centre at most.
        let calibration = calibration(scores[scores.len() / 2] - 0.08);
        Self { policy, scorer, tasks, encoded, calibration }
    }

    fn request<'a>(
        &'a self,
        streams: &'a [u64],
        samples: usize,
        sampling: &'a Sampling,
    ) -> Request<'a> {
        let (tasks, encoded) = (&self.tasks[..], &self.encoded);
        Request { tasks, encoded, streams, samples, sampling, control: RunControl::new(&|_| {}) }
    }

    fn guided(&self, config: &GuidedConfig, sampling: &Sampling) -> Vec<GuidedResponse> {
        self.guided_by(&self.calibration, config, sampling)
    }

    fn guided_by(
        &self,
        calibration: &Calibration,
        config: &GuidedConfig,
        sampling: &Sampling,
    ) -> Vec<GuidedResponse> {
        let streams: Vec<u64> = (0..self.tasks.len() as u64).collect();
        let guide = Guide::new(config.clone(), calibration).unwrap();
        let request = self.request(&streams, 2, sampling);
        sample_guided(&self.policy, &mut self.scorer.clone(), &guide, &request).unwrap()
    }

    fn unguided(&self, sampling: &Sampling) -> Vec<Generated> {
        let streams: Vec<u64> = (0..self.tasks.len() as u64).collect();
        sample(&self.policy, &self.request(&streams, 2, sampling)).unwrap()
    }

    /// Mentions of a response that do not reach the precision, of all it has.
    fn doubtful(&self, at: usize, response: &Generated, precision: f64) -> (usize, usize) {
        let mut scorer = self.scorer.clone();
        let image = &self.encoded.embeddings[at / 2];
        let scored = scorer.read(at / 2, response.clone(), image).unwrap();
        let model = ProbabilityModel::default();
        let doubtful = scored
            .scores
            .iter()
            .filter(|&&score| self.calibration.probability(score, model) < precision);
        (doubtful.count(), scored.scores.len())
    }
}

#[test]
fn every_doubtful_mention_is_taken_back_or_counted() {
    let setting = Setting::new();
    for sampling in [GREEDY, SAMPLED] {
        for precision in [0.3, 0.8, 0.99] {
            let config = GuidedConfig { precision, ..GuidedConfig::default() };
            let (guided, before) =
                (setting.guided(&config, &sampling), setting.unguided(&sampling));
            let (mut taken_back, mut left, mut all) = (0, 0, 0);
            for (at, (written, unguided)) in guided.iter().zip(&before).enumerate() {
                let guidance = &written.guidance;
                let (doubtful, mentions) = setting.doubtful(at, &written.response, precision);
                assert_eq!(guidance.let_through, doubtful, "{guidance:?}");
                assert!(guidance.taken_back.iter().all(|one| one.p_hallucinated > 1.0 - precision));
                assert!(guidance.rewinds <= config.max_rewinds);
                assert!(guidance.extra_tokens >= guidance.rewinds);
                let without = setting.doubtful(at, unguided, precision).0;
                assert_eq!(without == 0, guidance.rewinds + guidance.let_through == 0);
                if without == 0 {
                    assert_eq!(&written.response, unguided, "nothing was to be taken back");
                }
                taken_back += guidance.taken_back.len();
                left += doubtful;
                all += mentions;
            }
            let doubtful: usize = before
                .iter()
                .enumerate()
                .map(|(at, response)| setting.doubtful(at, response, precision).0)
                .sum();
            assert!(taken_back > 10, "too few to tell: {taken_back}");
            assert!(all > 10, "too few mentions are left to tell: {all}");
            assert!(left < doubtful / 2, "{left} of {doubtful} doubtful mentions are left");
        }
    }
}

#[test]
fn guidance_that_doubts_nothing_changes_nothing() {
    let setting = Setting::new();
    // Far below all scores, each of which is that of a correct mention then.
    let sure = calibration(-10.0);
    for sampling in [GREEDY, SAMPLED] {
        let guided = setting.guided_by(&sure, &GuidedConfig::default(), &sampling);
        for (guided, unguided) in guided.iter().zip(setting.unguided(&sampling)) {
            assert_eq!(guided.response, unguided);
            assert_eq!(guided.guidance, Guidance::default());
        }
    }
}

#[test]
fn guidance_without_rewinds_only_counts() {
    let setting = Setting::new();
    let config = GuidedConfig { max_rewinds: 0, ..GuidedConfig::default() };
    let mut counted = 0;
    for (guided, unguided) in setting.guided(&config, &GREEDY).iter().zip(setting.unguided(&GREEDY))
    {
        assert_eq!(guided.response, unguided);
        assert!(guided.guidance.taken_back.is_empty());
        counted += guided.guidance.let_through;
    }
    assert!(counted > 5, "too few to tell: {counted}");
}

#[test]
fn guidance_gives_the_same_responses_again() {
    let setting = Setting::new();
    let config = GuidedConfig::default();
    assert!(setting.guided(&config, &SAMPLED) == setting.guided(&config, &SAMPLED));
    let other = Sampling { seed: 5, ..SAMPLED };
    assert!(setting.guided(&config, &SAMPLED) != setting.guided(&config, &other));
}

#[test]
fn precision_lies_between_zero_and_one() {
    for precision in [0.0, 1.0, -0.5, f64::NAN] {
        let config = GuidedConfig { precision, ..GuidedConfig::default() };
        let error = Guide::new(config, &calibration(0.0)).expect_err("out of range");
        assert!(error.to_string().contains("guided.precision"), "{error}");
    }
}
