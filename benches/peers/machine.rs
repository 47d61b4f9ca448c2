use serde_json::{Value, json};

/// What the figures depend on besides the software.
pub fn json() -> Value {
    json!({
        "processor": processor(),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "date": jiff::Zoned::now().date().to_string(),
    })
}

pub fn line() -> String {
    let machine = json();
    let text = |key: &str| machine[key].as_str().unwrap_or_default().to_owned();
    format!(
        "{}, {} cores for servers and load, Linux {}, {}",
        text("processor"),
        machine["cores"],
        text("kernel"),
        text("date")
    )
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("unknown processor", |(_, name)| name).to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
