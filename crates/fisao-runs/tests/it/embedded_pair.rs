//! The models that the library carries.

use fisao_runs::Reporter;
use fisao_runs::bundle::embedded;
use fisao_runs::device::cpu;
use fisao_runs::score_settings::ScoreSettings;
use fisao_runs::scorer::Scorer;
use fisao_runs::vocabulary::Vocabulary;
use fisao_scenes::{Split, World, WorldKind};

/// A caption of a scene that also names what is not in it.
#[test]
fn mentions_of_objects_that_are_there_score_higher() {
    let reporter = Reporter::silent();
    let models = embedded(WorldKind::Clear).unwrap();
    let loaded = models.verifier(ScoreSettings::default(), &cpu(), &reporter).unwrap();
    let words = Vocabulary::of_world();
    let mut scorer = Scorer::new(&loaded, &words, None, &reporter).unwrap();
    let world = World::of(WorldKind::Clear);
    let scene = world.scene(Split::Test, 0, 3);
    let there = scene.categories();
    let vocabulary = fisao_scenes::vocabulary();
    let absent = vocabulary.iter().map(|(name, _)| name.as_str());
    let absent: Vec<&str> = absent.filter(|name| !there.contains(name)).take(2).collect();
    let image = world.render(&scene);
    let embedding = scorer.embed(&loaded.views.of(&image)).unwrap();

    let names = there.iter().copied().chain(absent.iter().copied());
    let caption = names.map(|name| format!("There is a {name}.")).collect::<Vec<_>>().join(" ");
    let scored = scorer.caption(&embedding, &caption).unwrap();
    let named: Vec<&str> = scored.mentions.iter().map(|mention| &*mention.category).collect();
    assert_eq!(named, [&there.iter().copied().collect::<Vec<_>>()[..], &absent[..]].concat());
    let (right, wrong) = scored.mentions.split_at(there.len());
    let least = right.iter().map(|mention| mention.score).fold(f64::INFINITY, f64::min);
    let most = wrong.iter().map(|mention| mention.score).fold(f64::NEG_INFINITY, f64::max);
    assert!(least > most, "{caption}: {least} and {most}");
}
