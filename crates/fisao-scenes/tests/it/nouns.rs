//! Articles, numbers and plurals, checked against English written by hand.

use fisao_scenes::{CATEGORIES, Noun};

fn noun_of(name: &str) -> Noun {
    CATEGORIES.iter().find(|category| category.name() == name).expect("the category exists").noun
}

#[test]
fn counted_nouns_have_correct_articles_and_plurals() {
    let cases = [
        ("apple", 1, "an apple"),
        ("umbrella", 1, "an umbrella"),
        ("orange", 2, "two oranges"),
        ("dog", 1, "a dog"),
        ("dog", 2, "two dogs"),
        ("person", 3, "three people"),
        ("sheep", 2, "two sheep"),
        ("mouse", 2, "two mice"),
        ("knife", 2, "two knives"),
        ("bus", 2, "two buses"),
        ("sandwich", 3, "three sandwiches"),
        ("traffic light", 1, "a traffic light"),
        ("wine glass", 2, "two wine glasses"),
        ("teddy bear", 3, "three teddy bears"),
        ("skis", 1, "a pair of skis"),
        ("scissors", 2, "two pairs of scissors"),
        ("broccoli", 1, "a piece of broccoli"),
        ("tv", 2, "two tvs"),
    ];
    for (name, count, expected) in cases {
        assert_eq!(noun_of(name).counted(count), expected);
    }
}

#[test]
fn bare_nouns_have_no_article() {
    assert_eq!(noun_of("hot dog").bare(1), "hot dog");
    assert_eq!(noun_of("couch").bare(2), "couches");
    assert_eq!(noun_of("skis").bare(1), "pair of skis");
}
