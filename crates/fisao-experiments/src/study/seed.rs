//! What one seed gives: captions, then every measurement on them.

use fisao_align::centring::{ScoreCentres, centre, mismatched_scores};
use fisao_align::encoding::encode_all_images;
use fisao_align::mentions::ScoredResponse;
use fisao_align::region_weights::region_weights;
use fisao_eval::captions::{self, CaptionInput, CaptionOptions, MeteorTables};
use fisao_models::generation::Sampling;
use fisao_runs::Reporter;
use fisao_runs::bundle::{LoadedVerifier, Policy, Views};
use fisao_verifier::calibration::Calibration;
use fisao_verifier::mentions::{ObjectVocabulary, TokenMention};
use fisao_verifier::regions::{ImageEmbedding, RegionWeights, Regions};
use fisao_verifier::scorer::Verifier;

use super::document::{CoarseResult, Correlation, ProbeResult, SeedStudy, VariantResult};
use super::measures::{auc, calibrated, correlation, detection, probabilities};
use super::needs::{sizes, thresholds, vocabulary_sizes};
use super::probe::Probe;
use super::sample::{Mention, Sample};
use super::source::{Part, Source};
use super::variants::{VARIANTS, Variant};
use super::{HALLUCINATION, cost};

/// How much resolution the verifier loses where variants are to be told apart.
const COARSENESS: [f64; 3] = [2.0, 3.0, 4.0];

/// A quality of one caption.
type Metric = fn(&captions::CaptionScores) -> f64;

/// Everything a seed is worked on with.
pub(super) struct StudyRunner<'a> {
    pub(super) policy: &'a Policy,
    pub(super) loaded: &'a LoadedVerifier,
    /// Scores by the default settings, without centres, and knows all names.
    pub(super) verifier: Verifier,
    /// The same of each of the variants, in their order.
    pub(super) variants: Vec<Verifier>,
    /// What the verifier sees besides the model's own pixels.
    pub(super) views: Option<&'a Views>,
    pub(super) vocabulary: &'a ObjectVocabulary,
    pub(super) source: &'a Source<'a>,
    pub(super) sampling: Sampling,
    pub(super) reporter: &'a Reporter,
}

/// Both parts' images as verifiers of the same regions see them.
pub(super) struct ImageEmbeddings {
    pub(super) calibration: Vec<ImageEmbedding>,
    pub(super) test: Vec<ImageEmbedding>,
}

/// Captions of both parts.
pub(super) struct Samples {
    pub(super) calibration: Sample,
    pub(super) test: Sample,
}

impl Samples {
    /// All that the captions of both parts name.
    fn mentions(&self) -> impl Iterator<Item = &TokenMention> {
        let captions = self.calibration.captions.iter().chain(&self.test.captions);
        captions.flat_map(|caption| &caption.mentions)
    }
}

/// Mentions of both parts under one variant.
pub(super) struct Scored {
    pub(super) calibration: Vec<Mention>,
    pub(super) test: Vec<Mention>,
    /// Names of the calibration captions against other images.
    pub(super) mismatched: Vec<f64>,
    centres: ScoreCentres,
    /// Of regions, where they are found by the calibration part.
    pub(super) weights: Option<RegionWeights>,
}

/// What the variants make of images at one resolution.
struct Resolution {
    variants: Vec<(&'static Variant, Scored)>,
    /// What the verifier made of the whole of each test image.
    images: Vec<ImageEmbedding>,
}

impl Resolution {
    /// Scores by the pooled image, centred: what calibration without labels is compared on.
    fn pooled(&self) -> &Scored {
        let mut variants = self.variants.iter();
        let found = variants.find(|(variant, _)| variant.is_pooled());
        &found.expect("one of the variants is the pooled, centred one").1
    }

    /// Scores as commands do by default, with their calibration if they allow one.
    fn default(&self) -> (&Scored, Option<Calibration>) {
        let mut variants = self.variants.iter();
        let (_, scored) = variants
            .find(|(variant, _)| variant.is_default())
            .expect("one of the variants is the default");
        let calibration = calibrated(&scored.calibration).map(|calibration| {
            let ScoreCentres { names: centres, described } = scored.centres.clone();
            Calibration { centres, described, weights: scored.weights, ..calibration }
        });
        (scored, calibration)
    }
}

impl StudyRunner<'_> {
    /// Measures everything with one seed.
    pub(super) fn seed(&self, seed: u64) -> anyhow::Result<SeedStudy> {
        let samples = Samples {
            calibration: self.sample(Part::Calibration, seed)?,
            test: self.sample(Part::Test, seed)?,
        };
        let texts = self.embed_captions(&samples.test)?;
        let steps = 1 + COARSENESS.len() as u64;
        let progress = self.reporter.phase("score variants", steps);
        let sharp = self.at_resolution(&samples, seed, 1.0)?;
        progress.advance(1);
        let mut coarse = Vec::new();
        for coarseness in COARSENESS {
            let found = self.at_resolution(&samples, seed, coarseness)?;
            coarse.push(self.coarse(&samples.test, &found, &texts, coarseness));
            progress.advance(1);
        }
        progress.finish();
        let signals =
            self.signals(&samples, &self.embeddings(Regions::Patches, seed, 1.0)?, seed)?;
        let (default, calibration) = sharp.default();
        let mentions = &default.test;
        let rates = samples.test.hallucination_rates(mentions);
        let variants = sharp.variants.iter();
        Ok(SeedStudy {
            seed,
            captions: samples.test.captions.len(),
            captions_without_mention: rates.iter().filter(|rate| rate.is_none()).count(),
            mentions: mentions.len(),
            hallucinated: mentions.iter().filter(|mention| !mention.correct).count(),
            negated: samples.test.captions.iter().map(|caption| caption.negated).sum(),
            variants: variants.map(|(variant, scored)| result(variant, scored)).collect(),
            probe: self.probe(&samples, &sharp),
            signals,
            coarse,
            correlations: self.correlations(&samples.test, &sharp, &texts, seed)?,
            calibration: thresholds(sharp.pooled()),
            calibration_images: sizes(self, &samples.calibration, &samples.test, seed)?,
            vocabulary: vocabulary_sizes(self.vocabulary, mentions, seed),
            distribution: calibrated(mentions).map(|calibration| calibration.histograms),
            cost: cost::measure(self, &samples.test, calibration.as_ref(), seed)?,
        })
    }

    /// Mentions of both parts under every variant, on images that lost resolution by a factor.
    fn at_resolution(
        &self,
        samples: &Samples,
        seed: u64,
        coarseness: f64,
    ) -> anyhow::Result<Resolution> {
        // The embeddings of patches hold those of the whole images, too.
        let patches = self.embeddings(Regions::Patches, seed, coarseness)?;
        let crops = self.embeddings(Regions::Crops, seed, coarseness)?;
        let mut variants = Vec::with_capacity(VARIANTS.len());
        for (variant, verifier) in VARIANTS.iter().zip(&self.variants) {
            let embeddings = if variant.regions == Regions::Crops { &crops } else { &patches };
            variants.push((variant, self.scored(verifier.clone(), samples, embeddings)?));
        }
        // Only the whole images are encoded again, and patches take hundreds of times their room.
        let whole = |image: ImageEmbedding| ImageEmbedding { parts: Vec::new(), ..image };
        Ok(Resolution { variants, images: patches.test.into_iter().map(whole).collect() })
    }

    /// What is left of detection, and of the correlations with the fraction of correct mentions.
    fn coarse(
        &self,
        sample: &Sample,
        found: &Resolution,
        texts: &[Vec<f32>],
        coarseness: f64,
    ) -> CoarseResult {
        let auc = found.variants.iter().map(|(v, scored)| (v.name.to_owned(), auc(&scored.test)));
        let scores = CaptionScores::of(&self.verifier, sample, found, texts);
        let with_truth = scores.map(|scores| {
            correlation(HALLUCINATION, &scores.correct, &scores.words, &scores.whole)
        });
        CoarseResult {
            coarseness,
            auc: auc.collect(),
            spearman_token: with_truth.as_ref().and_then(|found| found.token),
            spearman_sentence: with_truth.as_ref().and_then(|found| found.sentence),
        }
    }

    fn embeddings(
        &self,
        regions: Regions,
        seed: u64,
        coarseness: f64,
    ) -> anyhow::Result<ImageEmbeddings> {
        let mut settings = VARIANTS[0].settings();
        settings.score.regions = regions;
        let loaded = self.loaded.with_settings(settings);
        let own_pixels = self.views.is_none() && regions != Regions::Crops && coarseness <= 1.0;
        let views = (!own_pixels).then(|| loaded.views.coarsened(coarseness));
        let of_part = |part| {
            let tasks = self.source.tasks(part, seed, views.as_ref());
            encode_all_images(&loaded.verifier, tasks.as_ref())
        };
        Ok(ImageEmbeddings { calibration: of_part(Part::Calibration)?, test: of_part(Part::Test)? })
    }

    /// A verifier for each of the variants that knows all names; `known` does by the default settings.
    pub(super) fn variants(
        loaded: &LoadedVerifier,
        known: &Verifier,
        vocabulary: &ObjectVocabulary,
    ) -> anyhow::Result<Vec<Verifier>> {
        let mut verifiers: Vec<Verifier> = Vec::with_capacity(VARIANTS.len());
        for variant in VARIANTS {
            let mut verifier = loaded.with_settings(variant.settings()).verifier;
            // Names sound alike in the same sentences, wherever they are looked for.
            let is_alike = |other: &&Verifier| other.templates() == verifier.templates();
            let alike = verifiers.iter().find(is_alike).or(Some(known).filter(is_alike));
            if let Some(alike) = alike {
                let texts = alike.embeddings().iter();
                verifier.insert_embeddings(texts.map(|(name, text)| (name.clone(), text.clone())));
            }
            verifier.learn(vocabulary)?;
            verifiers.push(verifier);
        }
        Ok(verifiers)
    }

    fn scored(
        &self,
        mut verifier: Verifier,
        samples: &Samples,
        embeddings: &ImageEmbeddings,
    ) -> anyhow::Result<Scored> {
        let (captions, images) = (&samples.calibration.captions, &embeddings.calibration);
        for mention in samples.mentions() {
            verifier.embed_mention(mention)?;
        }
        let weights = if verifier.score_config().regions == Regions::Auto {
            let truth = &samples.calibration.truth;
            Some(region_weights(captions, images, &verifier, self.vocabulary, truth)?)
        } else {
            None
        };
        verifier.set_weights(weights.unwrap_or_default());
        let centres = centre(captions, images, &mut verifier, self.vocabulary)?;
        let mentions = |sample: &Sample, images: &[ImageEmbedding]| {
            sample.mentions(&verifier, images, self.vocabulary)
        };
        Ok(Scored {
            calibration: mentions(&samples.calibration, &embeddings.calibration)?,
            test: mentions(&samples.test, &embeddings.test)?,
            mismatched: mismatched_scores(captions, images, &verifier)?,
            centres,
            weights,
        })
    }

    /// Text embedding of every caption as a whole.
    fn embed_captions(&self, sample: &Sample) -> anyhow::Result<Vec<Vec<f32>>> {
        let embed = |caption: &ScoredResponse| {
            self.verifier.embed_text(std::slice::from_ref(&caption.text))
        };
        Ok(sample.captions.iter().map(embed).collect::<Result<Vec<_>, _>>()?)
    }

    fn probe(&self, samples: &Samples, sharp: &Resolution) -> Option<ProbeResult> {
        let scored = &sharp.variants;
        let correct: Vec<bool> = scored[0].1.calibration.iter().map(|m| m.correct).collect();
        let features = |sample: &Sample, pick: fn(&Scored) -> &Vec<Mention>| -> Vec<Vec<f64>> {
            let mentions = sample.captions.iter().flat_map(|caption| {
                caption.mentions.iter().map(|mention| (&sample.images[caption.task], mention))
            });
            let row = |(at, (image, mention)): (usize, (&ImageEmbedding, &TokenMention))| {
                let text = &self.verifier.embeddings()[&mention.form];
                let products = image.whole.iter().zip(text).map(|(v, t)| f64::from(v * t));
                products.chain(scored.iter().map(|(_, scored)| pick(scored)[at].score)).collect()
            };
            mentions.enumerate().map(row).collect()
        };
        let train = features(&samples.calibration, |scored| &scored.calibration);
        let probe = Probe::fit(&train, &correct)?;
        let test = features(&samples.test, |scored| &scored.test);
        let mentions = scored[0].1.test.iter().zip(&test);
        let mentions: Vec<Mention> = mentions
            .map(|(mention, features)| Mention { score: probe.score(features), ..*mention })
            .collect();
        Some(ProbeResult { ridge: probe.ridge, detection: detection(&mentions, None) })
    }

    /// Scores of words and of captions against the truth and against captions by people.
    fn correlations(
        &self,
        sample: &Sample,
        sharp: &Resolution,
        texts: &[Vec<f32>],
        seed: u64,
    ) -> anyhow::Result<Vec<Correlation>> {
        let Some(scores) = CaptionScores::of(&self.verifier, sample, sharp, texts) else {
            return Ok(Vec::new());
        };
        let CaptionScores { named, correct, words, whole } = scores;
        let mut found = vec![correlation(HALLUCINATION, &correct, &words, &whole)];
        let Some(references) = self.source.references(Part::Test, seed) else { return Ok(found) };
        if named.is_empty() {
            return Ok(found);
        }
        let inputs: Vec<CaptionInput> = named
            .iter()
            .map(|&at| CaptionInput {
                image_id: sample.ids[at].clone(),
                caption: sample.captions[at].text.clone(),
            })
            .collect();
        let options = CaptionOptions::default();
        let report = captions::evaluate(&inputs, &references, &MeteorTables::default(), &options)?;
        let metrics: [(&str, Metric); 3] = [
            ("BLEU-4", |scores| scores.bleu_4),
            ("ROUGE-L", |scores| scores.rouge_l),
            ("CIDEr", |scores| scores.cider),
        ];
        for (name, metric) in metrics {
            let quality: Vec<f64> =
                report.per_image.iter().map(|image| metric(&image.scores)).collect();
            found.push(correlation(name, &quality, &words, &whole));
        }
        Ok(found)
    }
}

fn result(variant: &Variant, scored: &Scored) -> VariantResult {
    let calibration = calibrated(&scored.calibration);
    VariantResult {
        name: variant.name.to_owned(),
        default: variant.is_default(),
        detection: detection(&scored.test, calibration.as_ref()),
    }
}

/// Scores of the captions that name something.
struct CaptionScores {
    /// Their positions.
    named: Vec<usize>,
    /// Fraction of correct mentions.
    correct: Vec<f64>,
    /// Mean probability of the words.
    words: Vec<f64>,
    /// Cosine of the whole caption.
    whole: Vec<f64>,
}

impl CaptionScores {
    /// `None` where scores allow no calibration.
    fn of(
        verifier: &Verifier,
        sample: &Sample,
        found: &Resolution,
        texts: &[Vec<f32>],
    ) -> Option<Self> {
        let (scored, calibration) = found.default();
        let mut words: Vec<Vec<f64>> = vec![Vec::new(); sample.captions.len()];
        for (mention, p) in scored.test.iter().zip(probabilities(&calibration?, &scored.test)) {
            words[mention.caption].push(p);
        }
        let mut all = Self { named: vec![], correct: vec![], words: vec![], whole: vec![] };
        let rates = sample.hallucination_rates(&scored.test);
        for (at, (rate, words)) in rates.into_iter().zip(words).enumerate() {
            let Some(rate) = rate else { continue };
            let image = &found.images[sample.captions[at].task];
            all.named.push(at);
            all.correct.push(1.0 - rate);
            all.words.push(words.iter().sum::<f64>() / words.len() as f64);
            all.whole.push(verifier.score_text(image, &texts[at]));
        }
        Some(all)
    }
}
