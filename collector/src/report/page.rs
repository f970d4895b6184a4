//! A report as it is read: Markdown, or one HTML file.
//!
//! Owns the two templates. What is put into them comes from outside, and is escaped by where it stands: no text makes a tag, a table or a
//! link.

use minijinja::{AutoEscape, Environment, Value, context, escape_formatter, syntax::SyntaxConfig};
use serde::{Deserialize, Serialize};

use crate::{
    query::{plain, printable},
    store::page::Page,
};

/// What a report says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Report {
    /// Its name.
    pub title: String,
    /// What it is about, and where it comes from: names and values.
    pub facts: Vec<(String, String)>,
    /// Its parts, in order.
    pub sections: Vec<Section>,
}

/// A part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Section {
    /// Its name.
    pub title: String,
    /// What it is, in sentences; each a paragraph.
    pub text: Vec<String>,
    /// What was found.
    pub table: Option<Page>,
}

impl Section {
    /// With a table; said in words where it is empty.
    pub(super) fn of(title: &str, text: &str, table: Page, none: &str) -> Self {
        let mut section = Self {
            title: title.to_owned(),
            text: [text]
                .into_iter()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
                .collect(),
            table: None,
        };
        if table.rows.is_empty() {
            section.text.push(none.to_owned());
        } else {
            if table.truncated {
                section
                    .text
                    .push(format!("Only the first {} rows are here.", table.rows.len()));
            }
            section.table = Some(table);
        }
        section
    }
}

/// The report as CommonMark.
pub(super) fn markdown(report: &Report) -> anyhow::Result<String> {
    Ok(render("report.md", report)?)
}

/// The report as one HTML file.
pub(super) fn html(report: &Report) -> anyhow::Result<String> {
    Ok(render("report.html", report)?)
}

fn render(template: &str, report: &Report) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".html") {
            AutoEscape::Html
        } else {
            AutoEscape::Custom(MARKDOWN.into())
        }
    });
    environment.set_formatter(|out, state, value| match state.auto_escape() {
        AutoEscape::Custom(form) if form == MARKDOWN => Ok(out.write_str(&escaped(&value.to_string()))?),
        _ => escape_formatter(out, state, value),
    });
    environment.add_template("report.md", include_str!("report.md.jinja"))?;
    environment.add_template("report.html", include_str!("report.html.jinja"))?;
    let sections = report.sections.iter().map(|section| {
        let rows = section.table.iter().flat_map(|table| &table.rows);
        let cell = |value| printable(&plain(value));
        let rows: Vec<Vec<String>> = rows.map(|row| row.iter().map(cell).collect()).collect();
        let columns = section.table.as_ref().map(|table| {
            let title = |name: &String| name.replace('_', " ");
            table.columns.iter().map(title).collect::<Vec<_>>()
        });
        let text: Vec<String> = section.text.iter().map(|text| printable(text)).collect();
        context! { title => section.title.clone(), text => text, columns => columns, rows => rows }
    });
    let facts: Vec<(String, String)> = report
        .facts
        .iter()
        .map(|(name, value)| (name.clone(), printable(value)))
        .collect();
    environment.get_template(template)?.render(context! {
        title => report.title.clone(),
        facts => facts,
        sections => sections.collect::<Vec<Value>>(),
        version => env!("CARGO_PKG_VERSION"),
    })
}

/// Punctuation that means something in CommonMark or a table, behind a backslash, which takes the meaning away (CommonMark 0.31, 2.4).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\`*_[]<>|~&!#".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

const MARKDOWN: &str = "markdown";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hostile() -> Report {
        let text = "<script>alert(1)</script> | [x](javascript:y) *z*\n# a\u{1b}[31m";
        Report {
            title: "A report".to_owned(),
            facts: vec![("period".to_owned(), text.to_owned())],
            sections: vec![
                Section {
                    title: "One".to_owned(),
                    text: vec![text.to_owned()],
                    table: Some(Page {
                        columns: vec!["who".to_owned(), "how_often".to_owned()],
                        rows: vec![vec![json!(text), json!(7)], vec![json!(["a", "b"]), json!(null)]],
                        truncated: false,
                    }),
                },
                Section::of("Two", "", Page::default(), "There is none."),
            ],
        }
    }

    #[test]
    fn no_text_makes_html() {
        let html = html(&hostile()).expect("rendered");
        assert!(!html.contains("<script") && !html.contains('\u{1b}'), "{html}");
        assert_eq!(html.matches("&lt;script&gt;").count(), 3, "{html}");
        assert_eq!(
            (html.matches("<tr>").count(), html.matches("<h2>").count()),
            (3, 2),
            "{html}"
        );
        assert!(html.contains("There is none."));
    }

    #[test]
    fn no_text_makes_markdown() {
        let markdown = markdown(&hostile()).expect("rendered");
        // Behind a backslash that is none itself.
        let plain = markdown.replace("\\\\", "");
        for sign in ["<", "[", "*"] {
            let escaped = plain.matches(&format!("\\{sign}")).count();
            assert_eq!(
                (plain.matches(sign).count(), escaped > 0),
                (escaped, true),
                "{sign} in\n{markdown}"
            );
        }
        let lines: Vec<&str> = markdown.lines().collect();
        assert!(
            lines.contains(&"| who | how often |") && lines.contains(&"| a, b |  |"),
            "{markdown}"
        );
        assert!(!lines.iter().any(|line| line.starts_with("# a")), "{markdown}");
        let cells = markdown
            .lines()
            .find(|line| line.ends_with("| 7 |"))
            .expect("the row");
        assert_eq!(cells.replace("\\|", "").matches('|').count(), 3, "{cells}");
    }
}
