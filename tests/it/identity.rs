//! A case is what was asked for: a search of settings, or a run on another day, does not give it another name; another model does, and is told.
//!
//! In: a tiny net on `tract` (whose settings are searched) and on `native`. Out: ids, settings and words of run folders. Must not: depend on
//! which setting is faster here.

#[cfg(feature = "tract")]
use std::collections::BTreeMap;
use std::fs;

use ergometer::models::Model;
#[cfg(feature = "tract")]
use ergometer_reports::case::Case;
#[cfg(feature = "tract")]
use serde_json::Value;

use crate::house::{House, dense};

#[cfg(feature = "tract")]
fn by_path(house: &House, run: &str) -> BTreeMap<String, Case> {
    house.cases(run).into_values().map(|c| (c.path.clone(), c)).collect()
}

#[cfg(feature = "tract")]
#[test]
fn what_a_search_chose_stands_beside_the_identity_and_can_be_pinned() {
    let house = House::new();
    let suite = house.suite(
        "searched.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"tract\"]\nscenarios = [\"offline-b1\"]\nseconds = 0.05\nwarmup_seconds = 0\ntune = true\n",
    );
    house.run(&suite, "first", &[]).exits(0);
    let first = by_path(&house, "first");
    let (path, case) = first.first_key_value().unwrap();
    assert_eq!(path, "small/dense/f32/tract/offline-b1/t1/once", "the name that the suite gives it");
    assert_eq!(case.key.backend_options, BTreeMap::from([("settings".into(), "searched".into())]));
    let settings = case.settings.as_ref().unwrap();
    assert_eq!(settings.source, "searched in this run");
    let tuning = case.tuning.as_ref().unwrap();
    assert_eq!(settings.options, tuning.tried[tuning.chosen].options);

    // whatever another search may choose, the case stays what it is
    let mut remembered: Value = serde_json::from_slice(&fs::read(house.path("first/tuning.json")).unwrap()).unwrap();
    let other = (tuning.chosen + 1) % tuning.tried.len();
    remembered[0]["tuning"]["chosen"] = other.into();
    house.file("pinned.json", remembered.to_string());
    house.run(&suite, "second", &["--tuning", "pinned.json"]).exits(0);
    let second = &by_path(&house, "second")[path];
    assert_eq!((&second.id, &second.key), (&case.id, &case.key));
    let pinned = second.settings.as_ref().unwrap();
    assert_eq!((&pinned.options, pinned.source.as_str()), (&tuning.tried[other].options, "pinned by pinned.json"));

    // a file that does not fit is refused before anything is measured
    house.file("none.json", "{}");
    house.run(&suite, "third", &["--tuning", "none.json"]).refused(&[
        "none.json",
        "no file of searched settings",
        "hint: ",
    ]);
    house.run(&suite, "third", &["--tuning", "absent.json"]).refused(&["absent.json", "hint: "]);
    house.file("empty.json", "[]");
    house.run(&suite, "fourth", &["--tuning", "empty.json"]).refused(&["empty.json", path, "hint: "]);
    remembered[0]["tuning"]["chosen"] = 99.into();
    house.file("beyond.json", remembered.to_string());
    house.run(&suite, "fifth", &["--tuning", "beyond.json"]).refused(&["beyond.json", "does not list", "hint: "]);
}

#[test]
fn a_model_that_changed_is_told_with_its_file_and_its_times() {
    let house = House::new();
    let suite = house.suite(
        "two.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nseconds = 0.05\nwarmup_seconds = 0\n",
    );
    house.run(&suite, "run", &[]).exits(0);
    let before = house.run(&suite, "run", &["--resume"]);
    before.exits(0);
    assert!(!before.stderr.contains("since the run began"), "{}", before.stderr);

    let model = Model::random(&dense(), 8).unwrap();
    Model::save(&house.path("dense"), &dense(), model.graph().unwrap(), &model.params).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    fs::File::options().append(true).open(house.path("dense/model.safetensors")).unwrap().set_modified(later).unwrap();
    let after = house.run(&suite, "run", &["--resume"]);
    after.exits(0);
    for part in ["model `dense`", "since the run began", "model.safetensors changed (was of 2", "measured anew"] {
        assert!(after.stderr.contains(part), "no `{part}` in: {}", after.stderr);
    }
    assert!(!after.stderr.contains("config.json"), "that one did not change: {}", after.stderr);
    // both are in the table, told apart by when their model was written, and the later one says what happened
    let page = fs::read_to_string(house.path("run/report/report.md")).unwrap();
    assert_eq!(after.stdout.matches("(model of 2").count().min(2), 2, "{}", after.stdout);
    assert!(page.contains("(model of 2") && page.contains("model.safetensors changed"), "{page}");
}

#[test]
fn a_folder_of_cases_without_an_environment_is_not_adopted() {
    let house = House::new();
    let suite = house.suite(
        "one.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nseconds = 0.05\nwarmup_seconds = 0\n",
    );
    house.run(&suite, "run", &["--check"]).exits(0);
    house.run(&suite, "run", &["--resume"]).refused(&["another mode (check, now measure)", "hint: "]);
    fs::remove_file(house.path("run/environment.json")).unwrap();
    house.run(&suite, "run", &[]).refused(&["holds cases, but no environment.json", "hint: "]);
    house.run(&suite, "run", &["--resume"]).refused(&["environment.json", "hint: "]);
}
