//! Generates `docs/reference/api.md` from the comments of proto/ and compares them. Test code: it reads proto/, and
//! writes the page if UPDATE_DOCS is set.

use std::{collections::HashMap, fmt::Write as _};

use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const FILES: [&str; 4] = [
    "inventory_sentinel/v1/inventory_sentinel.proto",
    "inventory_sentinel/v1/inventory_admin.proto",
    "inventory_sentinel/v1/inventory_events.proto",
    "inventory_sentinel/v1/types.proto",
];

/// Field numbers of FileDescriptorProto, of services, messages and enums: the paths of their comments.
const MESSAGE: i32 = 4;
const ENUM: i32 = 5;
const SERVICE: i32 = 6;
const METHOD: i32 = 2;
const FIELD: i32 = 2;
const VALUE: i32 = 2;

fn descriptors() -> FileDescriptorSet {
    let mut compiler = protox::Compiler::new([concat!(env!("CARGO_MANIFEST_DIR"), "/proto")]).expect("proto/ is there");
    compiler.include_source_info(true).include_imports(false);
    compiler.open_files(FILES).expect("proto/ compiles").file_descriptor_set()
}

struct Page<'a> {
    out: String,
    comments: HashMap<Vec<i32>, String>,
    file: &'a FileDescriptorProto,
}

impl Page<'_> {
    fn comment(&self, path: &[i32]) -> &str {
        self.comments.get(path).map_or("", |comment| comment.trim())
    }

    fn line(&mut self, line: &str) {
        writeln!(self.out, "{line}").expect("writing to a String never fails");
    }

    fn services(&mut self) {
        for (s, service) in self.file.service.iter().enumerate() {
            let path = [SERVICE, s as i32];
            self.line(&format!("\n## {}\n\n{}", service.name(), self.comment(&path)));
            for (m, method) in service.method.iter().enumerate() {
                let path = [SERVICE, s as i32, METHOD, m as i32];
                let stream = |streams| if streams { "stream of " } else { "" };
                self.line(&format!(
                    "\n### {}\n\n`{}` → {}`{}`{}\n\n{}",
                    method.name(),
                    short(method.input_type()),
                    stream(method.server_streaming()),
                    short(method.output_type()),
                    if method.client_streaming() { ", from a stream of requests" } else { "" },
                    self.comment(&path)
                ));
                for name in [method.input_type(), method.output_type()] {
                    if let Some(at) = self.file.message_type.iter().position(|of| of.name() == short(name)) {
                        let message = &self.file.message_type[at];
                        self.fields(message, at as i32);
                    }
                }
            }
        }
    }

    /// The messages that are not a request or a response, and the enums.
    fn shared(&mut self) {
        let is_of_a_call = |name: &str| name.ends_with("Request") || name.ends_with("Response");
        for (i, message) in self.file.message_type.iter().enumerate() {
            if !is_of_a_call(message.name()) {
                self.line(&format!("\n### {}\n\n{}", message.name(), self.comment(&[MESSAGE, i as i32])));
                self.fields(message, i as i32);
            }
        }
        for (i, of) in self.file.enum_type.iter().enumerate() {
            self.line(&format!("\n### {}\n\n{}\n", of.name(), self.comment(&[ENUM, i as i32])));
            self.line("| value | number | meaning |\n|---|---|---|");
            for (v, value) in of.value.iter().enumerate() {
                let meaning = flat(self.comment(&[ENUM, i as i32, VALUE, v as i32]));
                self.line(&format!("| `{}` | {} | {meaning} |", value.name(), value.number()));
            }
        }
    }

    fn fields(&mut self, message: &DescriptorProto, at: i32) {
        if message.field.is_empty() {
            return;
        }
        self.line(&format!("\n| field of `{}` | type | meaning |\n|---|---|---|", message.name()));
        for (f, field) in message.field.iter().enumerate() {
            let meaning = flat(self.comment(&[MESSAGE, at, FIELD, f as i32]));
            self.line(&format!("| `{}` | {} | {meaning} |", field.name(), type_of(field)));
        }
    }
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn flat(comment: &str) -> String {
    comment.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn type_of(field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()).to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    let before = match field.label() {
        Label::Repeated => "repeated ",
        _ if field.proto3_optional() => "optional ",
        _ if field.oneof_index.is_some() => "one of: ",
        _ => "",
    };
    format!("{before}{name}")
}

const INTRODUCTION: &str = "\
<!-- Every call, field and value of the API. Generated by `make docs` from the comments of proto/; do not edit. -->
# API

Package `inventory_sentinel.v1`. Refusals are explained in [errors.md](errors.md), rules in
[rules.md](../concepts/rules.md).
";

fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    let set = descriptors();
    let page = |file: &FileDescriptorProto, write: fn(&mut Page<'_>)| {
        let info = file.source_code_info.clone().unwrap_or_default();
        let comments = info.location.into_iter().map(|at| {
            let comment = at.leading_comments().lines().map(|line| line.strip_prefix(' ').unwrap_or(line));
            let comment = comment.collect::<Vec<_>>().join("\n");
            (at.path, comment)
        });
        let mut page = Page { out: String::new(), comments: comments.collect(), file };
        write(&mut page);
        page.out
    };
    for file in &set.file {
        out.push_str(&page(file, |page| page.services()));
    }
    out.push_str("\n## Shared messages\n");
    for file in &set.file {
        out.push_str(&page(file, |page| page.shared()));
    }
    out
}

#[test]
fn the_documentation_is_the_proto() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/api.md");
    let expected = markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &expected).expect("docs/reference/api.md is writable");
    }
    let written = std::fs::read_to_string(path).expect("docs/reference/api.md exists");
    assert!(written == expected, "docs/reference/api.md differs from proto/: run `make docs`");
}
