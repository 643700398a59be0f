//! The init process of a kernel of the matrix: mounts the file systems, runs the test programs one after the other, copies
//! their output to the console, and powers off. Where systemd is PID 1, it runs as a service: systemd mounts the file
//! systems, and each test program gets a cgroup below that of the service.
//!
//! ```text
//! VM-KERNEL 6.1.0-56-cloud-amd64
//! VM-LSM lockdown,yama,apparmor,bpf
//! TEST-BEGIN actions
//! ... output of the program ...
//! TEST-END actions 0 12.3
//! VM-DONE 1
//! ```

mod machine;
mod order;
mod processes;
mod run;

use std::{fs, process};

use anyhow::{Context, Result};
use nix::sys::reboot::{RebootMode, reboot};

use crate::{order::Order, processes::Processes};

/// The orders, written by `cargo xtask vm`.
const ORDERS: &str = "/vm-orders";

fn main() {
    // Init must not return: print the error, and power off in any case.
    if let Err(error) = perform() {
        println!("VM-FAILED {error:#}");
    }
    // SAFETY: no arguments.
    unsafe { libc::sync() };
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    println!("VM-FAILED power off: {error}");
}

fn perform() -> Result<()> {
    let is_pid_1 = process::id() == 1;
    if is_pid_1 {
        machine::mount_all()?;
        machine::loopback_up()?;
    }
    machine::open_tmp()?;
    println!("VM-KERNEL {}", read("/proc/sys/kernel/osrelease"));
    println!("VM-LSM {}", read("/sys/kernel/security/lsm"));
    let orders = fs::read_to_string(ORDERS).with_context(|| ORDERS.to_owned())?;
    let orders = Order::read_all(&orders)?;
    let mut environment = Vec::new();
    let mut directory = "/".to_owned();
    let mut done = 0;
    for order in orders {
        match order {
            Order::Module(path) => {
                // Only the tests that need the module fail.
                if let Err(error) = machine::load(&path) {
                    println!("VM-MODULE {path}: {error:#}");
                }
            }
            Order::Variable(name, value) => environment.push((name, value)),
            Order::Directory(path) => directory = path,
            Order::Test(test) => {
                let processes = match is_pid_1 {
                    true => Processes::OfMachine,
                    false => Processes::below_own_cgroup(&test.name)?,
                };
                run::run(&test, &environment, &directory, &processes)?;
                done += 1;
            }
        }
    }
    println!("VM-DONE {done}");
    Ok(())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}
