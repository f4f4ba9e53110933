//! What denies an object, and what only looks like it.

use super::denied;

/// Every mention of every text has the verdict.
fn all_are(expected: bool, texts: &[&str]) {
    for text in texts {
        let found = denied(text);
        assert!(!found.is_empty() && found.iter().all(|it| *it == expected), "{text}: {found:?}");
    }
}

#[test]
fn negation_cues_before_a_mention_negate_it() {
    all_are(
        true,
        &[
            "no dog",
            "NO DOG",
            "a street with no cars",
            "without a car",
            "there isn't a cat",
            "There isn\u{2019}t a cat",
            "not a single person",
            "it never shows a cat",
            "no cats or dogs",
            "neither a dog nor a cat",
            "nor a dog",
            "none visible, nor any dog",
            "the room is devoid of people",
            "it lacks a chair and lacks a cat",
            "it lacked a cat",
            "lacking any cats",
            "a lack of cars",
            "no sign of a dog",
            "no trace of any people",
            "I cannot see a dog",
            "you can't see a dog",
            "the people-free street",
        ],
    );
    all_are(
        false,
        &[
            "not only a dog but also a cat",
            "not just a dog",
            "nothing but a dog",
            "no doubt a dog",
            "without a doubt, a dog",
            "there is no question a dog",
            "there is no mistaking a dog",
            "no wonder a dog",
            "none but a dog",
            "none other than a dog",
            "no less than a dog",
            "not all dogs",
            "not every dog",
            "not many people",
            "not enough cars",
            "this is no ordinary dog",
            "no shortage of dogs",
            "no, a dog",
            "the note says a dog",
        ],
    );
}

#[test]
fn privative_words_before_of_negate_a_mention() {
    all_are(
        true,
        &[
            "a street free of cars",
            "the absence of people",
            "void of people",
            "the road is empty of cars",
            "a hall bereft of people",
        ],
    );
    all_are(
        false,
        &[
            "a free dog",
            "an empty car",
            "an empty wine glass",
            "absence makes a dog sad",
            "a dog set free of a car",
            "it broke free of the car",
        ],
    );
}

#[test]
fn double_negation_asserts_the_object() {
    all_are(
        false,
        &[
            "not without a dog",
            "no lack of dogs",
            "it doesn't lack a cat",
            "the street is not free of cars",
            "it isn't devoid of people",
            "never without a dog",
            "You cannot see a dog without noticing it",
            "he can't pass a dog without smiling",
        ],
    );
    all_are(
        true,
        &[
            "You cannot see a dog without a leash",
            "no, without a dog",
            "no dog without barking",
            "you cannot see a dog, without noticing anything",
        ],
    );
}

#[test]
fn no_longer_negates_only_after_there_is() {
    all_are(true, &["there is no longer a dog", "There's no longer a dog"]);
    all_are(
        false,
        &[
            "it is no longer a dog",
            "no longer a dog",
            "the dog is no longer visible",
            "no longer than a car",
        ],
    );
    all_are(true, &["not a longer car"]);
}

#[test]
fn none_of_the_objects_does_not_deny_their_presence() {
    all_are(true, &["none of any dogs", "none are dogs"]);
    all_are(false, &["none of the dogs", "None of these dogs", "none of her dogs wear a leash"]);
}

/// The vocabulary has no signs, so cars play their part.
#[test]
fn compound_adjectives_with_no_do_not_negate() {
    all_are(
        false,
        &["a no-parking car", "a no parking car", "the no entry car", "a never-ending car"],
    );
    all_are(true, &["no parking car", "a no-dog zone", "the no dogs zone", "no-dog zone"]);
}

#[test]
fn negation_extends_over_lists() {
    assert_eq!(denied("There are no dogs, cats, or people."), [true, true, true]);
    assert_eq!(denied("no dogs, cats or people"), [true, true, true]);
    assert_eq!(denied("no dogs, trees, or cats"), [true, true]);
    assert_eq!(denied("no cats, small dogs, trees, cars, or people"), [true; 4]);
    assert_eq!(denied("No, a tree or a cat"), [false]);
    assert_eq!(denied("no dogs, cats sleep here"), [true, false]);
    assert_eq!(denied("no dogs, cats, and people"), [true, false, false]);
    assert_eq!(denied("no dogs. Cats, or people"), [true, false, false]);
    assert_eq!(denied("dogs, cats, or people"), [false, false, false]);
    assert_eq!(denied("no snow, it is sunny or a dog plays"), [false]);
    assert_eq!(denied("The dog is absent or the cat is hidden"), [true, false]);
}

#[test]
fn negations_after_a_mention_negate_it() {
    all_are(
        true,
        &[
            "The dog is not visible",
            "a dog isn't visible.",
            "the small dog isn\u{2019}t present",
            "Dogs are not seen in the image",
            "dogs are not shown anywhere",
            "The dog is not there",
            "Trees grow and the dog is not visible, which is sad",
            "dogs are absent",
            "The dog is missing.",
            "dogs are missing from the picture",
            "the dog is nowhere to be seen",
            "It rains, with the dog nowhere to be found",
            "the dog is nowhere in sight",
            "the dog cannot be seen",
            "dogs can not be seen here",
            "the dog can't be seen in this photo",
            "the dog is not in the image",
            "The dog isn't in view",
            "dogs do not appear in the image",
            "a car-free street",
            "The dog is not visible at all",
            "The dog wasn't seen in the photo",
            "Dogs were absent",
            "A traffic light is not present",
        ],
    );
    all_are(
        false,
        &[
            "The dog is visible",
            "the dog is present",
            "The dog is not visible to the neighbour",
            "the dog is not fully visible",
            "the dog's face is not visible",
            "the dog leash is missing",
            "the face of the dog is not visible",
            "owners of dogs are not visible",
            "the leash near the dog is missing",
            "the dog is missing a leg",
            "the dog is absent-minded",
            "the dog is not seen barking",
            "dogs are not present to help",
            "dogs are seen, not visible",
            "the dog is nowhere near home",
            "the dog cannot be seen clearly",
            "the dog can be seen",
            "the dog does not appear happy",
            "a dog, is not visible",
            "the dog is not in the mood",
            "a dog free of fear",
            "the dog is free",
            "the toy next to the small dog is not visible",
            "The dog is there",
            "The dog is not alone",
        ],
    );
}
