//! Calibrations: made from scenes of the built-in synthetic dataset, used where they fit, refused where they do not.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use fisao_scenes::{CATEGORIES, Category, Split, World};
use serde_json::{Value, json};

use crate::fixture::Workplace;

/// Images that are enough to calibrate on.
const IMAGES: u64 = 64;

const CALIBRATE: [&str; 9] = [
    "calibrate",
    "--images",
    "scenes",
    "--temperature",
    "1",
    "--max-new-tokens",
    "64",
    "--output",
    "calibration.json",
];

/// A folder of scenes with annotations of what is in them, and captions of the first two.
fn workplace() -> Workplace {
    let place = Workplace::furnished();
    let world = World::new();
    fs::create_dir(place.path("scenes")).unwrap();
    let mut annotations = String::new();
    for index in 0..IMAGES {
        let scene = world.scene(Split::Calibration, 0, index);
        let id = world.image_id(Split::Calibration, index);
        world.render(&scene).save(place.path("scenes").join(format!("{id}.png"))).unwrap();
        let objects = scene.categories();
        writeln!(annotations, "{}", json!({ "image_id": id, "objects": objects })).unwrap();
    }
    place.write("annotations.jsonl", annotations);
    let captions: Vec<String> = (0..2)
        .map(|index| {
            let id = world.image_id(Split::Calibration, index);
            let scene = world.scene(Split::Calibration, 0, index).categories();
            let present = scene.iter().next().unwrap();
            let mut absent =
                CATEGORIES.iter().map(Category::name).filter(|name| !scene.contains(name));
            let (one, other) = (absent.next().unwrap(), absent.next().unwrap());
            let caption = format!("A {present} with a {one} and a {other}.");
            json!({ "image_id": id, "caption": caption }).to_string()
        })
        .collect();
    place.write("captions.jsonl", captions.join("\n"));
    place
}

/// Ctrl-C, and kills, at any time: what was captioned is kept, and the same command ends with the same bytes.
#[cfg(unix)]
#[test]
fn interrupted_calibration_resumes_to_the_same_result() {
    use std::process::Command;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    let place = workplace();
    let arguments = |output: &str| {
        let mut arguments = CALIBRATE.to_vec();
        *arguments.last_mut().unwrap() = output;
        arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |output: &str| {
        let arguments = arguments(output);
        place.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(run("whole.json").status.code(), Some(0));
    assert!(!place.path("whole.json.partial").exists() && !place.path("whole.json.lock").exists());
    let partial = place.path("cut.json.partial");
    let lines = || fs::read_to_string(&partial).map_or(0, |text| text.lines().count());
    // 64 images at once are captioned, and then four more captions of each are written: 2 × 64 lines after the first.
    for (enough, signal) in [(1, "-INT"), (65, "-INT"), (65, "-KILL")] {
        let mut child = place.start(arguments("cut.json"));
        let started = Instant::now();
        while lines() < enough && child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_mins(2), "no progress");
            sleep(Duration::from_millis(2));
        }
        let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
        let code = child.wait().unwrap().code();
        assert!(signal == "-KILL" || code == Some(130), "{code:?}");
        assert!(!place.path("cut.json").exists());
        assert!(lines() >= enough);
    }
    // A line that was cut off as it was written is written anew.
    let mut text = fs::read_to_string(&partial).unwrap();
    text.push_str("{\"seed\":0,\"str");
    fs::write(&partial, &text).unwrap();
    // Other settings would make other captions.
    let more = ["--seed", "1"].map(str::to_owned);
    let other = [arguments("cut.json"), more.to_vec()].concat();
    let error = place.refuse(&other.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        error.contains(
            "cut.json.partial was started with something else: the seed (--seed) is another"
        ),
        "{error}"
    );
    let output = run("cut.json");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("responses are there already"), "{errors}");
    assert_eq!(
        fs::read(place.path("whole.json")).unwrap(),
        fs::read(place.path("cut.json")).unwrap()
    );
    assert!(!partial.exists());
}

fn calibration(place: &Workplace) -> Value {
    serde_json::from_slice(&fs::read(place.path("calibration.json")).unwrap()).unwrap()
}

fn verify<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let arguments = ["verify", "--captions", "captions.jsonl", "--images", "scenes"];
    [&arguments[..], &["--calibration", "calibration.json"], more].concat()
}

#[test]
fn calibration_records_its_inputs_and_rejects_others() {
    let place = workplace();
    let printed =
        place.succeed(&[&CALIBRATE[..], &["--annotations", "annotations.jsonl"]].concat());
    assert!(printed.starts_with("AUC 0.9") || printed.starts_with("AUC 1.0"), "{printed}");
    let file = calibration(&place);
    let made_with = &file["made_with"];
    assert_eq!(made_with["model"]["name"], "fisao-embedded-llava");
    assert_eq!(made_with["images"]["count"], IMAGES);
    assert_eq!(made_with["verifier"]["model"]["sha256"].as_str().unwrap().len(), 64);
    let interval = &file["intervals"]["mu_hallucinated"];
    let (low, high) = (interval["low"].as_f64().unwrap(), interval["high"].as_f64().unwrap());
    let mu = file["mu_hallucinated"].as_f64().unwrap();
    assert!(low < mu && mu < high, "{interval} around {mu}");
    // Scores are centred by default, and every name of the world has its centre.
    assert!(file["centres"].as_object().unwrap().len() > 66);

    let words = place.succeed(&verify(&["--format", "jsonl"]));
    let found: Value = serde_json::from_str(words.lines().next().unwrap()).unwrap();
    assert_eq!(found["hallucinated"], 2, "{found}");
    assert_eq!(found["mentions"][0]["hallucinated"], false, "{found}");

    let other = place.refuse(&verify(&["--template", "a drawing of a {}"]));
    assert!(other.contains("was made with the templates [\"a photo of a {}.\"], not"), "{other}");
    let other = place.refuse(&verify(&["--regions", "patches"]));
    assert!(other.contains("calibrate again"), "{other}");
    let other = place.refuse(&verify(&["--verifier", "clip"]));
    assert!(
        other.contains("the verifier fisao-embedded-clip (") && other.contains("not clip ("),
        "{other}"
    );
    // Captions may be searched for other objects, if their scores can be brought to the calibration's scale.
    let other = place.refuse(&verify(&["--vocabulary", "everyday"]));
    assert!(other.contains("the calibration knows nothing about the scores of"), "{other}");
    let other = place.refuse(&verify(&["--heat-maps"]));
    assert!(other.contains("--format json"), "{other}");
    let align = ["align", "--model", "llava", "--verifier", "clip", "--images", "pictures"];
    let more = ["--calibration", "calibration.json", "--output", "run", "--vocabulary", "coco"];
    let other = place.refuse(&[&align[..], &more].concat());
    for part in ["the model fisao-embedded-llava", "the verifier", "another object vocabulary"] {
        assert!(other.contains(part), "{part}: {other}");
    }
}

#[test]
fn unusable_calibrations_are_rejected_with_the_reason() {
    let place = workplace();
    place.succeed(&CALIBRATE);
    let mut file = calibration(&place);
    assert_eq!(file["mode"], "none");
    file["version"] = json!(1);
    place.write("calibration.json", file.to_string());
    let error = place.refuse(&verify(&[]));
    assert!(
        error.contains("calibration version 1 is not one of 2 to 3; calibrate again"),
        "{error}"
    );
    file["version"] = json!(2);
    file["sigma"] = json!(0.0);
    place.write("calibration.json", file.to_string());
    let error = place.refuse(&verify(&[]));
    assert!(error.contains("sigma is 0"), "{error}");
    place.write("calibration.json", "{\"version\": 2}");
    assert!(place.refuse(&verify(&[])).contains("calibration.json"));

    let nothing = format!("{}\n", json!({ "image_id": "nothing", "objects": [] }));
    place.write("annotations.jsonl", nothing);
    let error = place.refuse(&[&CALIBRATE[..], &["--annotations", "annotations.jsonl"]].concat());
    assert!(error.contains("the annotations do not list the image"), "{error}");
}

#[test]
fn heat_maps_of_mentions_are_written_on_request() {
    let place = workplace();
    place.succeed(&[&CALIBRATE[..], &["--annotations", "annotations.jsonl"]].concat());
    let shown = ["--heat-maps", "--html", "page.html", "--html-captions", "1", "--format", "jsonl"];
    let printed = place.succeed(&verify(&shown));
    let found: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    let map = &found["mentions"][0]["heat_map"];
    assert_eq!((&map["side"], map["cosines"].as_array().unwrap().len()), (&json!(6), 36));
    let page = fs::read_to_string(place.path("page.html")).unwrap();
    assert_eq!(page.matches("<article").count(), 1);
    assert!(page.contains("1 less doubtful captions are not shown"));
    assert_eq!(page.matches("hallucinated absent").count(), 4, "two words, each with its map");
    assert!(!page.contains("http://") && !page.contains("https://"), "the page asks nobody");

    // The score of a word is the whole image's, whether or not it is shown where it is seen.
    let plain: Value = serde_json::from_str(
        place.succeed(&verify(&["--format", "jsonl"])).lines().next().unwrap(),
    )
    .unwrap();
    assert_eq!(plain["mentions"][0]["score"], found["mentions"][0]["score"]);
    assert_eq!(plain["mentions"][0].get("heat_map"), None);
}

#[test]
fn crop_and_patch_scores_can_be_calibrated() {
    let place = workplace();
    for regions in ["patches", "crops"] {
        let regions = format!("score.regions={regions}");
        let more = ["--annotations", "annotations.jsonl", "--set", &regions];
        place.succeed(&[&CALIBRATE[..], &more].concat());
        // The calibration says how to score.
        let printed = place.succeed(&verify(&["--format", "jsonl"]));
        let found: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
        assert!(found["mentions"][1]["p_hallucinated"].as_f64().unwrap() > 0.5, "{found}");
    }
    let error = place.refuse(
        &[&CALIBRATE[..], &["--set", "score.crops=9", "--set", "score.regions=crops"]].concat(),
    );
    assert!(error.contains("score.crops is 9; it must be from 2 to 8"), "{error}");
}

#[test]
fn phrases_and_contrasts_can_be_calibrated() {
    let place = workplace();
    let set = ["--set", "score.wording=phrase", "--set", "score.contrast=2"];
    place.succeed(&[&CALIBRATE[..], &["--annotations", "annotations.jsonl"], &set].concat());
    let score = &calibration(&place)["made_with"]["verifier"]["score"];
    assert_eq!((&score["wording"], &score["contrast"]), (&json!("phrase"), &json!(2)));
    let captions = fs::read_to_string(place.path("captions.jsonl")).unwrap();
    place.write("captions.jsonl", captions.replace("with a ", "with a small, brown "));
    let printed = place.succeed(&verify(&["--format", "jsonl"]));
    let found: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    let [first, second] = [&found["mentions"][0], &found["mentions"][1]];
    assert_eq!(first.get("description"), None);
    assert_eq!(second["description"], "small, brown {}");
    assert_eq!(second["contrasted"].as_array().unwrap().len(), 2, "{found}");
    assert_eq!((&first["hallucinated"], &second["hallucinated"]), (&json!(false), &json!(true)));
    // Another way to score is not what the calibration was made with.
    let other = place.refuse(&verify(&["--wording", "name"]));
    assert!(other.contains("calibrate again"), "{other}");
    let other = place.refuse(&verify(&["--contrast", "17"]));
    assert!(other.contains("17 is not in 0..=16"), "{other}");
    let decoder = ["score", "--verifier", "decoder", "--model", "llava", "--contrast", "1"];
    let image = format!("scenes/{}.png", World::new().image_id(Split::Calibration, 0));
    let other = place.refuse(&[&decoder[..], &["--image", &image, "--text", "dog"]].concat());
    assert!(other.contains("are for a text encoder"), "{other}");
}

#[test]
fn coco_annotations_calibrate_like_lists_of_objects() {
    let place = workplace();
    let lists = fs::read_to_string(place.path("annotations.jsonl")).unwrap();
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for (index, line) in lists.lines().enumerate() {
        let row: Value = serde_json::from_str(line).unwrap();
        let (id, number) = (row["image_id"].as_str().unwrap(), 391_895 + index);
        let name = format!("COCO_val2014_{number:012}.png");
        fs::rename(place.path("scenes").join(format!("{id}.png")), place.path("scenes").join(name))
            .unwrap();
        images.push(json!({ "id": number }));
        for object in row["objects"].as_array().unwrap() {
            let at = CATEGORIES
                .iter()
                .position(|known| known.name() == object.as_str().unwrap())
                .unwrap();
            annotations.push(
                json!({ "image_id": number as f64, "category_id": at, "bbox": [0, 0, 1, 1] }),
            );
        }
    }
    let categories =
        CATEGORIES.iter().enumerate().map(|(id, known)| json!({ "id": id, "name": known.name() }));
    let categories: Vec<Value> = categories.collect();
    let coco = json!({ "images": images, "annotations": annotations, "categories": categories });
    place.write("instances.json", coco.to_string());
    place.succeed(&[&CALIBRATE[..], &["--annotations", "instances.json"]].concat());
    let of_coco = calibration(&place);
    let names: Vec<String> = lists
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            row["image_id"] = json!(format!("{}", 391_895 + index));
            row.to_string()
        })
        .collect();
    place.write("annotations.jsonl", names.join("\n"));
    place.succeed(&[&CALIBRATE[..], &["--annotations", "annotations.jsonl"]].concat());
    assert_eq!(calibration(&place), of_coco);
}

/// Words of the captions that the scenes hold, and all of them.
fn correct_mentions(captions: &[Value]) -> (usize, usize) {
    let world = World::new();
    let (mut correct, mut all) = (0, 0);
    for caption in captions {
        let id = caption["image_id"].as_str().unwrap().trim_end_matches(".png");
        let index = id.rsplit('-').next().unwrap().parse().unwrap();
        let present = world.scene(Split::Calibration, 0, index).categories();
        let text = caption["caption"].as_str().unwrap();
        let named = CATEGORIES.iter().map(Category::name).filter(|name| text.contains(name));
        for name in named {
            all += 1;
            correct += usize::from(present.contains(name));
        }
    }
    (correct, all)
}

#[test]
fn guided_captions_name_fewer_objects_that_are_not_there() {
    let place = workplace();
    place.succeed(&[&CALIBRATE[..], &["--annotations", "annotations.jsonl"]].concat());
    let caption = ["caption", "--images", "scenes", "--format", "json"];
    let captions = |more: &[&str]| -> Vec<Value> {
        let text = place.succeed(&[&caption[..], more].concat());
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
    };
    let guided = ["--calibration", "calibration.json", "--guided", "0.8"];
    let (before, after) = (captions(&[]), captions(&guided));
    assert!(before.iter().all(|caption| caption.get("guided").is_none()));
    let ((correct, all), (guided_correct, guided_all)) =
        (correct_mentions(&before), correct_mentions(&after));
    let (wrong, guided_wrong) = (all - correct, guided_all - guided_correct);
    assert!(wrong > 10, "too few to tell: {wrong}");
    assert!(guided_wrong < wrong / 2, "{guided_wrong} of {guided_all}, before {wrong} of {all}");
    let mut taken_back = 0;
    for (before, after) in before.iter().zip(&after) {
        let guidance = &after["guided"];
        let words = guidance["taken_back"].as_array().unwrap();
        assert!(words.iter().all(|word| word["p_hallucinated"].as_f64().unwrap() > 0.2));
        if words.is_empty() {
            assert_eq!(before["caption"], after["caption"]);
        } else {
            assert!(guidance["extra_tokens"].as_u64().unwrap() >= words.len() as u64);
        }
        assert!(guidance["let_through"].is_u64());
        taken_back += words.len();
    }
    assert!(taken_back >= wrong / 2, "{taken_back} words were taken back");
    // The same with a choice among several.
    let best = captions(&[&guided[..], &["--best-of", "2", "--temperature", "1"]].concat());
    assert_eq!(best.len(), before.len());
    assert!(best.iter().all(|caption| caption["guided"]["taken_back"].is_array()));
    // An evaluation writes the same captions, and a folder of theirs is gone on with in no other way.
    let eval = ["eval", "chair", "--images", "scenes", "--annotations", "annotations.jsonl"];
    let eval = [&eval[..], &["--vocabulary", "world", "--output", "judged"]].concat();
    place.succeed(&[&eval[..], &guided].concat());
    let rows = fs::read_to_string(place.path("judged/answers.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows.len(), after.len());
    let texts = |captions: &[Value]| -> BTreeSet<String> {
        captions.iter().map(|caption| caption["caption"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(texts(&rows), texts(&after));
    let error = place.refuse(&eval);
    assert!(error.contains("made with `guided` 0.8, not null"), "{error}");
}
