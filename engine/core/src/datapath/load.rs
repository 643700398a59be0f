//! Loading the programs of the embedded object into the kernel.

use std::{collections::HashMap, thread};

use aya::{Btf as KernelTypes, Ebpf, EbpfLoader, programs::Program};
use engine_common::limits::EVENT_RING_BYTES;

use super::{
    btf::Btf,
    error::DatapathError,
    features::Features,
    maps::raise_memory_limit,
    offsets::Offsets,
    program::ProgramSpec,
    program_group::{ANCHOR, GROUPS, GroupName, Refusal},
};

/// The programs as built from engine-ebpf.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/engine-ebpf.o"));
/// A hash of it, by the build script.
pub(super) const OBJECT_HASH: &str = env!("TIDEGATE_OBJECT_HASH");

/// When the reader of events is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeUp {
    /// For each record, so that the reader can look at the process before it exits.
    EachRecord,
    /// For denials, and when the ring fills up; otherwise the reader polls from time to time. An audited attempt
    /// costs half as much.
    Batched,
}

/// The options that programs are loaded with.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadOptions {
    pub(super) features: Features,
    pub(super) wake: WakeUp,
    /// Size of the event ring; `None` for the default.
    pub(super) ring_bytes: Option<u32>,
}

/// Programs and maps in the kernel. Those that are not pinned are released when this is dropped.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    /// The programs that the kernel accepted.
    pub(super) programs: Vec<&'static ProgramSpec>,
}

/// Loads maps and programs, with the offsets of this kernel.
pub(super) fn load(options: LoadOptions) -> Result<Loaded, DatapathError> {
    raise_memory_limit();
    let mut features = options.features.without_uncalled();
    // Both read the kernel's type information, a few megabytes: this crate for the offsets, and aya's loader for
    // relocations that Rust does not emit, which cannot be switched off.
    let (loader, offsets) = thread::scope(|scope| {
        let loader = scope.spawn(EbpfLoader::new);
        let offsets = Btf::of_running_kernel().and_then(|btf| {
            let mut offsets = Offsets::of(&btf)?;
            let wanted = features.groups;
            for row in GROUPS.iter().filter(|row| wanted.has(row.name)) {
                if let Err(error) = offsets.add(row.members, &btf) {
                    log_left_out(row.name, &error);
                    features.groups = features.groups.without(row.name);
                }
            }
            Ok(offsets)
        });
        (loader.join(), offsets)
    });
    let offsets = offsets?;
    let mut loader = loader.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (send_signal, set_retval) = (features.send_signal as u32, features.set_retval as u32);
    let ancestor_helper = features.ancestor_helper as u32;
    let task_btf = features.task_btf as u32;
    let wake_each = (options.wake == WakeUp::EachRecord) as u32;
    loader
        .btf(None)
        .map_max_entries("EVENTS", options.ring_bytes.unwrap_or(EVENT_RING_BYTES))
        .override_global("HAS_SEND_SIGNAL", &send_signal, true)
        .override_global("HAS_SET_RETVAL", &set_retval, true)
        .override_global("HAS_TASK_BTF", &task_btf, true)
        .override_global("WAKE_EACH", &wake_each, true)
        .override_global("HAS_ANCESTOR_HELPER", &ancestor_helper, true);
    for (name, offset) in &offsets.0 {
        loader.override_global(name, offset, true);
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|error| DatapathError::CreateMaps(Box::new(error)))?;
    let programs = load_programs(&mut ebpf, features)?;
    Ok(Loaded { ebpf, programs })
}

fn log_left_out(group: GroupName, error: &dyn std::error::Error) {
    let group = group.as_str();
    tracing::debug!(error = ?error, group, "this kernel does not accept the programs of the group");
}

/// Loads all programs at the same time: the verifier takes tens of milliseconds for each. Returns those of the groups that
/// the kernel accepted.
fn load_programs(ebpf: &mut Ebpf, features: Features) -> Result<Vec<&'static ProgramSpec>, DatapathError> {
    let rows = || GROUPS.iter().filter(move |row| features.groups.has(row.name));
    let needs_types = rows()
        .flat_map(|row| row.programs(features.tracer))
        .any(|program| program.attach.needs_types());
    let types = needs_types
        .then(KernelTypes::from_sys_fs)
        .transpose()
        .map_err(|source| DatapathError::Types(Box::new(source)))?;
    let types = types.as_ref();
    let mut found: HashMap<String, &mut Program> = ebpf
        .programs_mut()
        .map(|(name, program)| (name.to_owned(), program))
        .collect();
    let mut take = |spec: &ProgramSpec| found.remove(spec.name).ok_or(DatapathError::Missing(spec.name));
    thread::scope(|scope| {
        let mut load = |spec: &'static ProgramSpec| {
            let program = take(spec)?;
            Ok::<_, DatapathError>(scope.spawn(move || spec.load(program, types)))
        };
        let anchor = load(&ANCHOR)?;
        let mut loading = Vec::new();
        for row in rows() {
            let threads: Result<Vec<_>, DatapathError> =
                row.programs(features.tracer).map(&mut load).collect();
            loading.push((row, threads?));
        }
        join(anchor)?;
        let mut programs = vec![&ANCHOR];
        for (row, threads) in loading {
            let loaded: Vec<Result<(), DatapathError>> = threads.into_iter().map(join).collect();
            match loaded.into_iter().collect::<Result<(), DatapathError>>() {
                Ok(()) => programs.extend(row.programs(features.tracer)),
                Err(error) if row.refusal == Refusal::LeavesOut => log_left_out(row.name, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(programs)
    })
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
