//! What page and Markdown say about a comparison in words.

use super::document::{Budget, Decoding, Document, Method};
use super::metric::Metric;
use super::summary::SIGNIFICANT;
use fisao_report::html::{counted, signed};

/// Title of what single runs warned of.
pub(super) const WARNED: &str = "What the runs warned of";

/// Title of both.
pub(super) const TITLE: &str = "Methods side by side";

/// The result in a few sentences.
pub(super) fn headline(document: &Document) -> String {
    let whole = format!(
        "Means over {}, {} scenes each, of which no method has seen any.",
        counted(document.settings.seeds.len(), "seed"),
        document.settings.scenes
    );
    let parts = [chair(document), differences(document), Some(whole)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Hallucination and recall of the method all are tested against, and of the base.
fn chair(document: &Document) -> Option<String> {
    let settings = &document.settings;
    let (key, base) = (settings.against.as_deref()?, settings.base.as_deref()?);
    let of = |key: &str, metric: Metric| {
        let mean = document.summary.method(key)?.mean(Decoding::Greedy, metric)?;
        Some(metric.text(Some(mean.spread.mean)))
    };
    let change = document.summary.method(key)?.chair_i_change.as_ref()?;
    Some(format!(
        "{}: {} % of the object mentions name something absent, against {} % for {} ({} %, in the worst seed {} %); \
         recall is {} % against {} %.",
        document.method(key)?.label,
        of(key, Metric::ChairI)?,
        of(base, Metric::ChairI)?,
        document.method(base)?.label,
        signed(100.0 * change.mean, 0),
        signed(100.0 * change.worst, 0),
        of(key, Metric::Recall)?,
        of(base, Metric::Recall)?,
    ))
}

/// How many of the others differ.
fn differences(document: &Document) -> Option<String> {
    document.against()?;
    let tests = || {
        let tests = document.summary.tests.iter();
        tests.filter(|test| test.decoding == Decoding::Greedy && test.metric == Metric::ChairI)
    };
    let count = |higher: bool| {
        tests().filter(|test| test.is_significant() && (test.difference > 0.0) == higher).count()
    };
    let (all, higher, lower) = (tests().count(), count(true), count(false));
    Some(format!(
        "Of the {all} other methods, {higher} hallucinate significantly more, {lower} significantly less; the other \
         {} cannot be told from it by these seeds.",
        all - higher - lower
    ))
}

/// What stands behind a number that differs.
pub(super) fn marks(document: &Document) -> String {
    document.against().map_or_else(String::new, |against| {
        format!(
            "† differs from {against} by a paired t-test over the seeds (p < {SIGNIFICANT} after Holm's correction for \
             all methods of the column)."
        )
    })
}

/// What is to be known about a table of means.
pub(super) fn table_notes(document: &Document) -> Vec<String> {
    let seeds = document.settings.seeds.len();
    let few = if seeds < 6 {
        " So few seeds leave the intervals wide, and what they do not tell apart may still differ."
    } else {
        ""
    };
    let notes = [
        format!("Mean over the seeds ± half of its 95 % t-interval; the best mean in bold.{few}"),
        marks(document),
        "Caption POPE: the answers are read from the caption, yes if it names the object asked for; three objects that \
         are there, and three that are not but often go with them. Not comparable with POPE of a model that answers \
         questions. Length and sampled tokens are counted in tokens; BLEU-4, ROUGE-L and CIDEr compare with truthful \
         captions of the scenes."
            .to_owned(),
    ];
    notes.into_iter().filter(|note| !note.is_empty()).collect()
}

/// Title of the changes, where there is a base.
pub(super) fn changes_title(document: &Document) -> Option<String> {
    let base = document.method(document.settings.base.as_deref()?)?;
    Some(format!("Change against {}", base.label))
}

/// What is equal between the methods, and what is not.
pub(super) fn budget(document: &Document) -> Vec<String> {
    let labels = |wanted: fn(&Method) -> bool| {
        let labels: Vec<&str> = document
            .methods
            .iter()
            .filter(|method| wanted(method))
            .map(|method| method.label.as_str())
            .collect();
        (!labels.is_empty()).then(|| labels.join("; "))
    };
    let settings = &document.settings;
    let mut texts = Vec::new();
    if let Some(labels) = labels(|method| method.budget == Some(Budget::Prompts)) {
        texts.push(format!(
            "Prompts ({labels}): each of these methods trains on the same {} images, each shown with its prompt. What \
             it makes of an image is its own affair: one may copy a caption that is given, another write one or \
             several of its own and learn from the comparison. Equal images are therefore not equal work; the \
             columns of seconds and of sampled tokens say what each spent.",
            settings.prompts
        ));
    }
    if let Some(labels) = labels(|method| method.budget == Some(Budget::WallTime)) {
        let long = match (settings.seconds, document.against()) {
            (Some(seconds), _) => format!("{seconds:.0} seconds"),
            (None, Some(against)) => format!("as long as {against} took with the same seed"),
            (None, None) => "equally long".to_owned(),
        };
        texts.push(format!(
            "Wall-time ({labels}): each of these methods trains for {long} on the same machine, on as many images as \
             it gets through."
        ));
    }
    if let Some(labels) = labels(|method| method.budget.is_none()) {
        texts.push(format!(
            "Without a budget ({labels}): nothing is trained. What such a method spends, it spends anew on every \
             caption that is asked of it; its seconds and tokens are those of captioning the scenes measured here."
        ));
    }
    if let Some(labels) = labels(|method| method.uses_external_data) {
        texts.push(format!(
            "External data ({labels}): these methods learn from captions or preferences that the model did not make \
             itself, and so know what the images hold. The others see images and prompts only."
        ));
    }
    texts.push(
        "All methods start from the same model, and with one seed they see the same training images and are \
         measured on the same scenes, so that they can be compared seed by seed."
            .to_owned(),
    );
    texts
}

/// Labels of the methods with what they do, where that is said.
pub(super) fn methods(document: &Document) -> Vec<(&str, &str)> {
    let methods = document.methods.iter().filter(|method| !method.description.is_empty());
    methods.map(|method| (method.label.as_str(), method.description.as_str())).collect()
}
