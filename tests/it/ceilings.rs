//! The machine's ceilings: measured by `doctor`, remembered by whoever comes later, left out where nothing may be measured.
//!
//! In: the program and a cache of its own. Out: verdicts. Must not: expect a speed; numbers are positive or absent with a reason.

use serde_json::Value;

use crate::house::{Ended, House};

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.exits(0).stdout).unwrap()
}

fn share(value: &Value) -> &Value {
    value["records"].as_array().unwrap().iter().find(|r| r["metric"] == "share_of_ceiling").unwrap()
}

#[test]
fn the_doctor_measures_ceilings_and_a_quick_look_remembers_them() {
    let house = House::new();
    let measured = json(&house.ergometer(&["doctor", "--ceilings", "--json"]));
    let ceilings = &measured["ceilings"];
    let list = ceilings["list"].as_array().unwrap();
    let names: Vec<&str> = list.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"f32.portable"), "{names:?}");
    for c in list {
        assert!(c["best"].as_f64().unwrap() > 0.0 && c["median"].as_f64().unwrap() > 0.0, "{c}");
        assert!(c["n"].as_u64().unwrap() > 0 && c["threads"].as_u64().unwrap() > 0 && c["unit"].is_string(), "{c}");
        assert!(!ceilings["matters_for"][c["name"].as_str().unwrap()].as_str().unwrap().is_empty(), "{c}");
    }
    for lacking in ceilings["missing"].as_array().into_iter().flatten() {
        assert!(!lacking["reason"].as_str().unwrap().is_empty(), "{lacking}");
    }
    assert!(house.path("cache/ceilings.json").is_file());

    let args = ["time", "--model", "dense", "--backend", "native", "--seconds", "0.1", "--json"];
    let mut command = house.command(&args);
    command.env_remove("ERGOMETER_CEILINGS");
    let seen = json(&crate::house::ended(command));
    assert_eq!(seen["environment"]["ceilings"]["measured"], ceilings["measured"], "recalled, not measured again");
    let held = share(&seen);
    assert!(held["value"].as_f64().unwrap() > 0.0, "{held}");
    assert!(held["method"].as_str().unwrap().contains("flop_rate over f32."), "{held}");

    // the reference interpreter is held to none
    let args = ["time", "--model", "dense", "--backend", "reference", "--seconds", "0.1", "--json"];
    let mut command = house.command(&args);
    command.env_remove("ERGOMETER_CEILINGS");
    let seen = json(&crate::house::ended(command));
    assert!(share(&seen)["value"].is_null() && share(&seen)["missing"]["message"].is_string(), "{}", share(&seen));
}

#[test]
fn a_check_measures_nothing_and_a_bad_file_is_ignored() {
    let house = House::new();
    std::fs::create_dir(house.path("cache")).unwrap();
    house.file("cache/ceilings.json", "[{\"key\": 1");
    let suite = house.suite(
        "one.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nprecisions = [\"f32\"]\n",
    );
    let mut command = house.command(&["run", suite.to_str().unwrap(), "--out", "run", "--check"]);
    command.env_remove("ERGOMETER_CEILINGS");
    crate::house::ended(command).exits(0);
    let missing = house.records("run").get("native", "share_of_ceiling").missing.clone().unwrap();
    assert_eq!(missing.kind, "not-measured");
    assert!(missing.hint.unwrap().contains("doctor --ceilings"));
    assert_eq!(std::fs::read_to_string(house.path("cache/ceilings.json")).unwrap(), "[{\"key\": 1");

    let mut command = house.command(&["run", suite.to_str().unwrap(), "--out", "other", "--check"]);
    command.env("ERGOMETER_CEILINGS", "on");
    crate::house::ended(command).refused(&["ERGOMETER_CEILINGS", "`on`", "hint: ", "`off`"]);
}
