//! `ergometer curve`: from logs of trainings to records, a table and plots.
//!
//! In: folders with a log, a recipe and figures, written here. Out: `records.csv`, plots, exit codes, messages. Must
//! not: train.

use std::fs;

use ergometer_reports::Record;
use ergometer_reports::record::from_csv;

use crate::house::House;

/// What an H200 has logged, shortened.
const BOARD: &str = "step,seconds,flops,learning_rate,loss_cells,loss_halting,train_exact,gradient_norm,exact_full,cells_full,exact_halting,cells_halting,steps_halting,n,gflop_per_s,questions_full,questions_halting,joules_counter,joules_integrated,power_w,temperature_c,sm_clock_mhz\n\
    1950,41.7,2.1964e+15,8.9596e-04,0.56237,0.08674,0.06048,0.38571,0.24854,0.80229,0.23438,0.80264,10.28,2048,118960.46,,,15684.4,15658.5,573.1,58,1980\n\
    2950,63.3,4.0742e+15,6.7845e-04,0.44291,0.09064,0.17473,0.47574,0.68408,0.90658,0.66357,0.90485,5.52,2048,89805.78,,,28655.2,28673.8,557.1,59,1980\n\
    3950,100.0,7.3081e+15,2.3808e-04,0.33650,0.04243,0.37960,0.47701,0.96045,0.98716,0.93311,0.98538,2.82,2048,91330.20,,,50818.4,50793.4,579.1,59,1980\n";
/// What a processor has.
const PROCESSOR: &str = "step,seconds,flops,learning_rate,loss_cells,loss_halting,train_exact,gradient_norm,exact_full,cells_full,exact_halting,cells_halting,steps_halting,n,gflop_per_s\n\
    100,43.7,4.8367e11,1.948e-3,1.03894,0.52640,0.1928,0.6791,0.5200,0.95229,0.5200,0.95229,16.00,600,12.42\n\
    200,82.6,9.6733e11,1.555e-3,0.13742,0.26983,0.8984,0.2470,0.8000,0.99958,0.7950,0.99948,1.00,600,12.98\n";

/// The folder of a trained net.
fn net(house: &House, name: &str, log: &str, size: u32, board: bool) {
    fs::create_dir_all(house.path(name)).unwrap();
    house.file(&format!("{name}/log.csv"), log);
    house.file(
        &format!("{name}/train.toml"),
        format!(
            "batch = 64\nthreads = 2\n[task]\nkind = \"sudoku\"\nsize = {size}\neval_examples = 600\neval_seed = 1\n"
        ),
    );
    house.file(&format!("{name}/config.json"), "{\"model_type\": \"trm\"}");
    if board {
        let figures = "{\"device\": \"NVIDIA H200\", \"precision\": \"bfloat16\", \"batch\": 1024, \"evaluation\": {\"file\": \"test.safetensors\"}}";
        house.file(&format!("{name}/training.json"), figures);
    }
}

fn get<'a>(records: &'a [Record], model: &str, metric: &str, target: &str) -> &'a Record {
    let scenario = format!("train-to-{target}");
    records.iter().find(|r| r.model == model && r.metric == metric && r.scenario == scenario).unwrap()
}

#[test]
fn logs_become_records_and_plots() {
    let house = House::new();
    net(&house, "att", BOARD, 9, true);
    net(&house, "other", &BOARD.replace("0.96045", "0.70000").replace("2048", "1536"), 9, true);
    let done = house.ergometer(&["curve", "att", "other", "--accuracy", "0.9,0.5", "--out", "out"]);
    let records = from_csv(&house.path("out/records.csv")).unwrap();
    assert_eq!(records.len(), 2 * 2 * 3);
    for (metric, unit, value, lower) in [
        ("time_to_accuracy", "s", 100.0, 63.3),
        ("flops_to_accuracy", "FLOP", 7.3081e15, 4.0742e15),
        ("joules_to_accuracy", "J", 50818.4, 28655.2),
    ] {
        let record = get(&records, "att", metric, "0.9");
        assert_eq!(
            (record.unit.as_str(), record.value, record.lower, record.upper),
            (unit, Some(value), Some(lower), Some(value))
        );
        assert_eq!((record.n, record.confidence, record.batch), (2048, None, 1024));
        assert_eq!(
            (record.isa.as_str(), record.precision.as_str(), record.backend.as_str()),
            ("NVIDIA H200", "bf16", "pytorch")
        );
        assert_eq!((record.task.as_str(), record.family.as_str()), ("sudoku size=9", "trm"));
        assert!(record.method.contains("not interpolated") && record.method.contains("90 %"), "{}", record.method);
        // Wilson for 1967 of 2048
        assert!(record.note.as_ref().unwrap().contains("96.05 % [95.11, 96.81], n = 2048 at step 3950"), "{record:?}");
        let missing = get(&records, "other", metric, "0.9");
        assert_eq!((missing.value, missing.lower, missing.upper), (None, None, None));
        let why = missing.missing.as_ref().unwrap();
        assert!(why.kind == "not-reached" && why.message.contains("70.00 %"), "{why:?}");
    }
    for part in ["not reached", "(63.3–100)", "at most 70.00 %", "The logs differ in examples evaluated: 1536; 2048."]
    {
        assert!(done.exits(0).stdout.contains(part), "no `{part}` in {}", done.stdout);
    }
    assert!(!done.stdout.contains("UNLIKE"), "{}", done.stdout);
    for kind in ["seconds", "flops", "joules"] {
        let svg = fs::read_to_string(house.path(&format!("out/plots/training-{kind}.svg"))).unwrap();
        assert!(svg.contains(">att<") && svg.contains(">other<") && svg.contains("held-out accuracy"), "{svg}");
        let png = fs::read(house.path(&format!("out/plots/training-{kind}.png"))).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
    }
    let page = fs::read_to_string(house.path("out/README.md")).unwrap();
    assert!(
        page.contains("plots/training-joules.svg") && page.contains("NVIDIA H200") && page.contains("Wilson"),
        "{page}"
    );
    // the same logs give the same bytes
    house.ergometer(&["curve", "att", "other", "--accuracy", "0.5,0.9", "--out", "again"]).exits(0);
    assert_eq!(crate::house::tree(&house.path("out")), crate::house::tree(&house.path("again")));
    let halting = house.ergometer(&["curve", "att", "--accuracy", "0.93", "--depth", "halting", "--json"]);
    assert!(
        halting.exits(0).stdout.contains("\"value\": 100.0") && halting.stdout.contains("93.31 %"),
        "{}",
        halting.stdout
    );
}

#[test]
fn unlike_tasks_are_said_first_and_drawn_apart() {
    let house = House::new();
    net(&house, "nine", BOARD, 9, true);
    net(&house, "four", PROCESSOR, 4, false);
    let done = house.ergometer(&["curve", "nine", "four", "--accuracy", "0.5", "--out", "out"]);
    let first = done.exits(0).stdout.lines().next().unwrap();
    assert!(first.starts_with("UNLIKE TASKS") && first.contains("sudoku size=4; sudoku size=9"), "{first}");
    assert!(done.stdout.contains("The logs differ in hardware"), "{}", done.stdout);
    for i in [1, 2] {
        let svg = fs::read_to_string(house.path(&format!("out/plots/training-seconds-{i}.svg"))).unwrap();
        assert_eq!([">nine<", ">four<"].iter().filter(|n| svg.contains(**n)).count(), 1);
    }
    // a processor's log has no joules, and no plot of them
    let records = from_csv(&house.path("out/records.csv")).unwrap();
    let joules = get(&records, "four", "joules_to_accuracy", "0.5");
    assert_eq!((joules.value, joules.missing.as_ref().unwrap().kind.as_str()), (None, "unavailable"));
    assert_eq!(joules.isa, "a processor that is not recorded, 2 threads");
    assert!(
        !house.path("out/plots/training-joules-1.svg").exists()
            && house.path("out/plots/training-joules-2.svg").exists()
    );
    assert!(
        get(&records, "four", "time_to_accuracy", "0.5").note.as_ref().unwrap().contains("first evaluation of the log")
    );
}

#[test]
fn wrong_logs_are_refused_by_file_and_line() {
    let house = House::new();
    let no = |log: &str, parts: &[&str]| {
        net(&house, "net", log, 9, true);
        house.ergometer(&["curve", "net", "--out", "never"]).refused(&[&["net/log.csv", "hint: "], parts].concat());
        assert!(!house.path("never").exists());
    };
    no(&BOARD.replace("0.68408", "NaN"), &["line 3", "`exact_full` is `NaN`"]);
    no(&BOARD.replace("100.0", "10.0"), &["line 4", "goes back"]);
    no(&BOARD.replace("seconds", "minutes"), &["line 1", "no column `seconds`"]);
    no("", &["empty"]);
    no("PK\x03\x04", &["zip archive"]);
    net(&house, "net", BOARD.trim_end(), 9, true);
    let torn = house.ergometer(&["curve", "net", "--accuracy", "0.6"]);
    assert!(torn.exits(0).stdout.contains("line 4 is cut off"), "{}", torn.stdout);
    net(&house, "net", &BOARD.replace("temperature_c", "mood"), 9, true);
    let odd = house.ergometer(&["curve", "net", "--accuracy", "0.6"]);
    assert!(odd.exits(0).stdout.contains("not known here, and were not read: mood"), "{}", odd.stdout);
    house.ergometer(&["curve", "trm"]).refused(&["trm/log.csv", "a trained net"]);
    house.ergometer(&["curve", "net", "net"]).refused(&["two nets are called `net`"]);
    for wrong in ["0", "1.5", "nan", "-0.5", "x"] {
        house.ergometer(&["curve", "net", "--accuracy", wrong]).refused(&["--accuracy", "shares above 0"]);
    }
    house.file("net/train.toml", "kind = ");
    house.ergometer(&["curve", "net"]).refused(&["train.toml", "no TOML"]);
    fs::remove_file(house.path("net/train.toml")).unwrap();
    fs::remove_file(house.path("net/training.json")).unwrap();
    fs::remove_file(house.path("net/config.json")).unwrap();
    let bare = house.ergometer(&["curve", "net", "--json"]);
    assert!(bare.exits(0).stdout.contains("\"task\": \"not recorded\""), "{}", bare.stdout);
}
