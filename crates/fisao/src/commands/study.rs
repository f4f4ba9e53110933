//! `fisao study`: what parts of the method are worth, measured.

use fisao_experiments::study::{AnnotatedImages, Studied, StudyRequest, study_verifier};
use fisao_experiments::theory::{TheoryRequest, study_theory};
use fisao_experiments::vocabulary::{VocabularyStudyRequest, study_vocabulary};
use fisao_runs::Reporter;

use crate::arguments::{SamplingArguments, StudyCommand, TheoryArguments, VerifierStudyArguments};
use crate::output;

pub(crate) fn run(command: &StudyCommand, reporter: &Reporter) -> anyhow::Result<()> {
    let Studied { summary, page } = match command {
        StudyCommand::Verifier(arguments) => study_verifier(&request(arguments)?, reporter)?,
        StudyCommand::Theory(TheoryArguments { seed, output }) => {
            let request = TheoryRequest { seed: *seed, output: output.clone() };
            study_theory(&request, reporter)?
        }
        StudyCommand::Vocabulary(arguments) => {
            let request = VocabularyStudyRequest {
                device: arguments.device.device.unwrap_or_default(),
                seeds: arguments.seeds,
                count: arguments.count,
                output: arguments.output.clone(),
            };
            study_vocabulary(&request, reporter)?
        }
    };
    output::line(summary.trim_end())?;
    reporter.note(format!("page: {}", page.display()));
    Ok(())
}

fn request(arguments: &VerifierStudyArguments) -> anyhow::Result<StudyRequest> {
    let (max_new_tokens, temperature) = (arguments.max_new_tokens, Some(arguments.temperature));
    let sampling = SamplingArguments { max_new_tokens, temperature, greedy: false, seed: 0 };
    let annotated = arguments.images.as_ref().zip(arguments.annotations.as_ref());
    let images = annotated.map(|(folder, annotations)| AnnotatedImages {
        folder: folder.clone(),
        annotations: annotations.clone(),
        references: arguments.references.clone(),
        prompt: arguments.prompt.clone(),
        damaged: arguments.damaged.images(),
    });
    Ok(StudyRequest {
        pair: arguments.pair.source(),
        device: arguments.pair.model.device.device.unwrap_or_default(),
        images,
        sampling: sampling.resolve()?,
        seeds: arguments.seeds,
        calibration: arguments.calibration,
        count: arguments.count,
        vocabulary: arguments.vocabulary.vocabulary.clone(),
        output: arguments.output.clone(),
    })
}
