//! Makes the pictures of the documentation: every page of spip-view on a sample log, in a headless browser. Started by
//! `cargo xtask screenshots`.
//!
//! The sample is made up and the same each time; its addresses are those reserved for documentation. `--all` makes a dark
//! and a narrow picture of each page as well, to look at before a change of the style is handed in.

#[path = "../../tests/common/driven.rs"]
mod driven;
mod sample;
mod small;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use driven::{Place, start};

const USAGE: &str = "usage: screenshots SPIP-VIEW FOLDER [--all]";

/// Time that a page may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Width and height of a picture.
const WIDE: (u32, u32) = (1280, 940);
const NARROW: (u32, u32) = (420, 900);

/// Pictures and their pages. A query in braces stands for the newest session that it finds.
const PAGES: &[(&str, &str)] = &[
    ("now", "/"),
    ("new", "/new"),
    ("tags", "/tags"),
    ("tag", "/clients/tag/7700001?range=all"),
    ("sources", "/sources"),
    ("source", "/sources/198.51.100.17?range=all"),
    ("countries", "/countries?range=all"),
    ("networks", "/networks?range=all"),
    ("ports", "/ports?range=all"),
    ("port", "/ports/23?range=all"),
    ("payloads", "/payloads"),
    ("clients", "/clients"),
    ("campaigns", "/campaigns?range=all"),
    ("credentials", "/credentials?range=all"),
    ("scans", "/scans?range=all"),
    ("search", "/search?range=all&q=port%3A80-8080%20and%20tag%3A*"),
    ("session", "/sessions/{tag:7700001}"),
    ("health", "/health?range=all"),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, folder, rest @ ..] = arguments.as_slice() else { bail!(USAGE) };
    let is_all = rest.iter().any(|word| word == "--all");
    let (program, folder) = (Path::new(program), Path::new(folder));
    let variable = |name: &str| std::env::var_os(name).with_context(|| format!("{name} names no program"));
    let (chromium, driver) = (variable("SPIP_CHROMIUM")?, variable("SPIP_CHROMEDRIVER")?);
    let place = Place(std::env::temp_dir().join(format!("spip-screenshots-{}", std::process::id())));
    std::fs::create_dir_all(&place.0)?;
    std::fs::create_dir_all(folder)?;
    let log = place.0.join("spip.jsonl");
    let sessions = sample::write(&log)?;

    let mut view = Command::new(program);
    view.args(["--listen", "127.0.0.1:0", "--read-once"]).arg(&log);
    let (_view, address) = start(&mut view, "the page is at ")?;
    let (_driver, port) = start(Command::new(driver).arg("--port=0"), "started successfully on port ")?;
    let port: u16 = port.trim_end_matches('.').parse()?;
    let options = json!({
        "binary": chromium.to_string_lossy(),
        "args": ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-lcd-text", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
            "--force-device-scale-factor=1", format!("--user-data-dir={}", place.0.join("browser").display())],
    });
    let Value::Object(capabilities) = json!({ "goog:chromeOptions": options }) else { bail!("no object") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await?;
        let address = address.trim_end_matches('/');
        wait_for_all(&client, address, sessions).await?;
        for (name, path) in PAGES {
            let path = resolved(&client, address, path).await?;
            picture(&client, &format!("{address}{path}"), "", WIDE, &folder.join(format!("{name}.png"))).await?;
            if is_all {
                let dark = folder.join(format!("{name}-dark.png"));
                picture(&client, &format!("{address}{path}"), "dark", WIDE, &dark).await?;
                let narrow = folder.join(format!("{name}-narrow.png"));
                picture(&client, &format!("{address}{path}"), "", NARROW, &narrow).await?;
            }
        }
        client.close().await?;
        Ok(())
    })
}

/// Asks for the data of a page.
async fn data(client: &Client, address: &str, path: &str) -> Result<Value> {
    client.goto(&format!("{address}/health")).await?;
    let script = "const done = arguments[1]; fetch(arguments[0]).then(r => r.json()).then(done)";
    Ok(client.execute_async(script, vec![json!(format!("{address}/api/v1{path}"))]).await?)
}

async fn wait_for_all(client: &Client, address: &str, sessions: u64) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while data(client, address, "/search?range=all&limit=1").await?["total"]["value"] != sessions {
        anyhow::ensure!(Instant::now() < end, "the page does not have the {sessions} sessions of the sample");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Puts the newest session of a query in the place of the query in braces.
async fn resolved(client: &Client, address: &str, path: &str) -> Result<String> {
    let Some((before, rest)) = path.split_once('{') else { return Ok(path.to_owned()) };
    let (query, after) = rest.split_once('}').context("a brace without an end")?;
    let found = data(client, address, &format!("/search?range=all&limit=1&q={query}")).await?;
    let id = found["sessions"][0]["id"].as_str().with_context(|| format!("no session of {query}"))?;
    Ok(format!("{before}{id}{after}"))
}

async fn picture(client: &Client, address: &str, theme: &str, size: (u32, u32), file: &Path) -> Result<()> {
    client.set_window_size(size.0, size.1).await?;
    client.goto(address).await?;
    let script = "document.documentElement.classList.add(arguments[0] || 'light'); return document.body.innerText";
    let text = client.execute(script, vec![json!(theme)]).await?;
    anyhow::ensure!(
        !text.as_str().unwrap_or_default().contains("This cannot be shown"),
        "{address} cannot be shown: {text}"
    );
    let bytes = small::smaller(&client.screenshot().await?)?;
    println!("{}: {} bytes", file.display(), bytes.len());
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}
