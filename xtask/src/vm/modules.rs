//! Kernel modules with their dependencies, in load order.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// A module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// The uncompressed module.
    pub(crate) bytes: Vec<u8>,
}

/// The wanted modules that this kernel has as modules, each after its dependencies. The others are built in or missing; the
/// tests find out.
///
/// # Errors
/// When a module cannot be read.
pub(crate) fn collect(directory: &Path, wanted: &[String]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(directory, &mut files)?;
    let mut collected = Vec::new();
    for name in wanted {
        add(name, &files, &mut collected)?;
    }
    Ok(collected)
}

fn find(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        // Do not follow links: one points to the kernel source.
        if entry.file_type()?.is_dir() {
            find(&path, files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, collected: &mut Vec<Module>) -> Result<()> {
    let name = name.replace('-', "_");
    if collected.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(file) = files.get(&name) else {
        return Ok(());
    };
    let bytes = read(file)?;
    for needed in depends(&bytes) {
        add(&needed, files, collected)?;
    }
    collected.push(Module { name, bytes });
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).with_context(|| file.display().to_string()),
    };
    let output = Command::new(program)
        .args(["--decompress", "--stdout"])
        .arg(file)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} cannot decompress {}",
        file.display()
    );
    Ok(output.stdout)
}

/// The dependencies of a module: `depends=a,b` in its section `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    let names = String::from_utf8_lossy(&rest[..end]).into_owned();
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_module_comes_after_its_dependencies() {
        let directory = std::env::temp_dir().join(format!("tidegate-xtask-modules-{}", std::process::id()));
        fs::create_dir_all(directory.join("net")).unwrap();
        fs::write(
            directory.join("net/top.ko"),
            b"ELF\0license=GPL\0depends=mid-dle,base\0",
        )
        .unwrap();
        fs::write(directory.join("net/mid-dle.ko"), b"ELF\0depends=base\0").unwrap();
        fs::write(directory.join("base.ko"), b"ELF\0depends=\0").unwrap();
        let wanted = ["builtin".to_owned(), "top".to_owned(), "base".to_owned()];
        let names: Vec<String> = collect(&directory, &wanted)
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(names, ["base", "mid_dle", "top"]);
    }
}
