//! Removes the DWARF sections from an eBPF object before it is embedded. The kernel and aya read `.BTF` and `.BTF.ext`
//! only; the line information in the verifier's log comes from `.BTF.ext`.

use object::{
    build::elf::{Builder, Section, SectionData},
    elf::SHT_STRTAB,
};

/// Sections that the loader or the kernel reads, besides those of the programs.
const REQUIRED: [&str; 4] = [".BTF", ".BTF.ext", ".maps", "license"];

/// The object without its `.debug_*` sections, their relocations and the section symbols that they leave behind.
///
/// # Errors
/// When `object` is not an ELF file that the writer supports, or lacks one of [`REQUIRED`].
pub(crate) fn without_dwarf(object: &[u8]) -> Result<Vec<u8>, String> {
    let mut builder = Builder::read(object).map_err(|error| error.to_string())?;
    for required in REQUIRED {
        let is_present = |section: &Section<'_>| section.name.as_slice() == required.as_bytes();
        if !builder.sections.iter().any(is_present) {
            return Err(format!("there is no section {required}"));
        }
    }
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        let target = name.strip_prefix(b".rel").unwrap_or(name);
        section.delete = target.starts_with(b".debug_");
    }
    builder.delete_orphans();
    // LLVM puts the names of sections and symbols into one string table; the writer needs two.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped).map_err(|error| error.to_string())?;
    Ok(stripped)
}
