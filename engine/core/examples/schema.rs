//! Prints the JSON schema of the policy language: what policies/schema.json holds.

fn main() -> anyhow::Result<()> {
    let schema = tidegate_core::policy::schema();
    println!("{}", serde_json::to_string_pretty(&schema)?);
    Ok(())
}
