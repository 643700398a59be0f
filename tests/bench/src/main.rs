//! Measures the overhead of policies: `cargo xtask bench`. It does not assert times; the exit code only says whether it
//! ran.
//!
//! ```text
//! supervisor (cleans up) -> fixture (networks, cgroups, datapath) -> row -> caller (alternating batches) -> statistics
//!                                                                 -> tables -> report: text, JSON, Markdown
//! ```

mod address;
mod batches;
mod bpf;
mod call;
mod cgroup;
mod cpu;
mod datapath;
mod fixture;
mod network;
mod networks;
mod nft;
mod policies;
mod random;
mod report;
mod row;
mod samples;
mod statistics;
mod supervisor;
mod tables;

use std::{io::Write, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    fixture::Fixture,
    report::{Machine, Report},
    row::Planned,
    samples::Samples,
    supervisor::WorkDirs,
};

/// Measure the overhead of policies.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    /// Take fewer samples: less than a minute in total
    #[arg(long)]
    quick: bool,
    /// Measure only rows and tables whose name contains one of these words; see --list
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    only: Vec<String>,
    /// List rows and tables
    #[arg(long)]
    list: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Also write JSON and Markdown files to docs/benchmarks
    #[arg(long)]
    save: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The tables other than that of the rows, as --only names them.
const TABLES: [&str; 4] = ["compile", "attach", "exec", "events"];

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    if cli.list {
        for row in row::rows() {
            println!(
                "{}",
                row.map_or_else(|reason| format!("({reason})"), |row| row.name)
            );
        }
        println!("{}", TABLES.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    match supervisor::inside()? {
        None => {
            let status = supervisor::supervise()?;
            Ok(if status.success() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Some(work_dirs) => {
            let report = measure(cli, &work_dirs)?;
            let text = match cli.output {
                Output::Text => report.text(),
                Output::Json => format!("{:#}\n", report.json()),
            };
            std::io::stdout().write_all(text.as_bytes())?;
            if cli.save {
                for path in report::save(&report)? {
                    let name = path.file_name().unwrap_or_default().display();
                    eprintln!("bench: wrote docs/benchmarks/{name}");
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Cli {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    /// The selected rows.
    fn rows(&self) -> Vec<Planned> {
        let wanted = |planned: &Planned| match planned {
            Ok(row) => self.wants(&row.name),
            Err(reason) => self.wants(reason),
        };
        row::rows().into_iter().filter(wanted).collect()
    }
}

fn measure(cli: &Cli, work_dirs: &WorkDirs) -> Result<Report> {
    let rows = cli.rows();
    if rows.is_empty() && !TABLES.iter().any(|table| cli.wants(table)) {
        bail!("no row or table has such a name; see --list");
    }
    // All stream sockets are created in advance.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut fixture = Fixture::open(work_dirs, Samples { quick: cli.quick })?;
    let mut skipped = Vec::new();
    let mut sections = Vec::new();
    if !rows.is_empty() {
        sections.push(tables::calls::measure(&mut fixture, rows, &mut skipped)?);
    }
    if cli.wants("compile") {
        sections.push(tables::compiling::measure(&mut fixture)?);
    }
    fixture.unload();
    if cli.wants("attach") {
        sections.push(tables::attached::measure(&mut fixture)?);
    }
    if cli.wants("exec") {
        sections.push(tables::commands::measure(&fixture, &mut skipped)?);
    }
    if cli.wants("events") {
        sections.push(tables::events::measure(&mut fixture)?);
    }
    Ok(Report {
        machine: Machine::of_now(),
        quick: cli.quick,
        sections,
        skipped,
    })
}
