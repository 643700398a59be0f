//! Downloads the kernels of the matrix, and systemd for the rows that boot with it, and caches them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    matrix::Kernel,
    mirrors::Mirrors,
    suite::{Candidate, Suite, unpack},
    systemd::Systemd,
};

/// What a machine boots.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// The kernel image.
    pub(crate) image: PathBuf,
    /// The directory of its modules.
    pub(crate) modules: PathBuf,
    /// Its PID 1, if that is not the init of vm-tests.
    pub(crate) systemd: Option<Systemd>,
}

/// The files of an unpacked kernel.
struct KernelFiles {
    image: PathBuf,
    modules: PathBuf,
}

/// Returns what a row boots from the cache, or downloads the newest kernel of its suites.
///
/// # Errors
/// When it is not cached and cannot be downloaded.
pub(crate) fn fetch(kernel: &Kernel, directory: &Path, update: bool) -> Result<Fetched> {
    let KernelFiles { image, modules } = fetch_kernel(kernel, directory, update)?;
    let systemd = kernel
        .systemd
        .as_ref()
        .map(|suite| Systemd::fetch(suite, directory, update));
    Ok(Fetched {
        image,
        modules,
        systemd: systemd.transpose()?,
    })
}

fn fetch_kernel(kernel: &Kernel, directory: &Path, update: bool) -> Result<KernelFiles> {
    let cached = directory.join("kernels").join(kernel.package.replace('*', "N"));
    if !update && let Ok(kernel) = find_kernel(&cached) {
        return Ok(kernel);
    }
    let mirrors = Mirrors::detect(directory)?;
    let mut newest: Option<Candidate> = None;
    for suite in &kernel.suites {
        let suite = Suite::open(suite, mirrors.uri(suite)?, directory)?;
        for candidate in suite.candidates(&kernel.package)? {
            if newest
                .as_ref()
                .is_none_or(|newest| candidate.is_newer_than(newest))
            {
                newest = Some(candidate);
            }
        }
    }
    let Some(newest) = newest else {
        bail!("no package {} in {}", kernel.package, kernel.suites.join(", "));
    };
    let (head, tail) = kernel.package.split_once('*').context("the pattern has no `*`")?;
    let version = newest
        .package
        .strip_prefix(head)
        .and_then(|rest| rest.strip_suffix(tail));
    let version = version.context("the package does not match its pattern")?;
    let mut packages = vec![newest.package.clone()];
    packages.extend(kernel.with.iter().map(|name| name.replace('*', version)));

    // Unpacked beside its place and then renamed: a cached kernel is complete.
    let partial = cached.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    let tree = partial.join("tree");
    fs::create_dir_all(&tree).with_context(|| tree.display().to_string())?;
    newest.suite.download(&packages, &partial)?;
    unpack(&partial, &tree)?;
    find_kernel(&partial)?;
    let _ = fs::remove_dir_all(&cached);
    fs::rename(&partial, &cached).with_context(|| cached.display().to_string())?;
    find_kernel(&cached)
}

/// Finds the kernel image and the modules in an unpacked package.
fn find_kernel(unpacked: &Path) -> Result<KernelFiles> {
    for modules in ["tree/usr/lib/modules", "tree/lib/modules"] {
        let Ok(releases) = fs::read_dir(unpacked.join(modules)) else {
            continue;
        };
        for modules in releases {
            let modules = modules?.path();
            let release = modules.file_name().context("directory without a name")?;
            let release = release.to_string_lossy().into_owned();
            let places = [
                modules.join("vmlinuz"),
                unpacked.join("tree/boot").join(format!("vmlinuz-{release}")),
            ];
            if let Some(image) = places.into_iter().find(|image| image.is_file()) {
                return Ok(KernelFiles { image, modules });
            }
        }
    }
    bail!("no kernel in {}", unpacked.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_in_boot_is_found() {
        let directory = std::env::temp_dir().join(format!("tidegate-xtask-fetch-{}", std::process::id()));
        assert!(find_kernel(&directory).is_err());
        let modules = directory.join("tree/lib/modules/5.10.0-1");
        fs::create_dir_all(&modules).unwrap();
        assert!(find_kernel(&directory).is_err(), "modules without a kernel");
        fs::create_dir_all(directory.join("tree/boot")).unwrap();
        fs::write(directory.join("tree/boot/vmlinuz-5.10.0-1"), "").unwrap();
        let found = find_kernel(&directory).unwrap();
        assert_eq!(found.modules, modules);
        assert!(found.image.is_file());
        fs::remove_dir_all(&directory).unwrap();
    }
}
