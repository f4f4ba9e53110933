//! The object words.

use std::collections::HashMap;

use fisao_scenes::{CATEGORIES, Theme, companions, vocabulary};

#[test]
fn every_category_has_its_name_first_and_no_form_is_shared() {
    let mut owner: HashMap<String, String> = HashMap::new();
    for (category, forms) in vocabulary() {
        assert_eq!(forms[0], category);
        for form in forms {
            if let Some(other) = owner.insert(form.clone(), category.clone()) {
                panic!("“{form}” names {category} and {other}");
            }
        }
    }
    assert!(CATEGORIES.len() >= 60, "only {} categories", CATEGORIES.len());
}

#[test]
fn synonyms_and_sprite_words_are_singular_forms() {
    let forms: HashMap<_, _> = vocabulary().into_iter().collect();
    for (category, form) in [
        ("person", "woman"),
        ("bicycle", "bike"),
        ("bird", "owl"),
        ("traffic light", "traffic light"),
        ("couch", "sofa"),
        ("skis", "skis"),
        ("cup", "mug"),
    ] {
        assert!(
            forms[category].iter().any(|known| known == form),
            "{form} is no form of {category}"
        );
    }
    assert!(!forms["bicycle"].iter().any(|form| form == "bikes"), "matchers make the plurals");
}

#[test]
fn themes_and_rules_name_existing_categories() {
    for theme in Theme::ALL {
        let members: Vec<_> =
            theme.members().map(|(category, _)| CATEGORIES[category].name()).collect();
        assert!(
            (7..=10).contains(&members.len()),
            "{theme:?} has {} usable members",
            members.len()
        );
        let rules = companions(theme);
        assert!((2..=4).contains(&rules.len()), "{theme:?} has {} rules", rules.len());
        for rule in rules {
            assert!(members.contains(&rule.trigger), "{theme:?}: {} is no member", rule.trigger);
            assert!(
                members.contains(&rule.companion),
                "{theme:?}: {} is no member",
                rule.companion
            );
            assert!(
                rules.iter().all(|other| other.trigger != rule.companion),
                "{theme:?}: rules chain"
            );
        }
    }
}
