//! The tables of `docs/BENCHMARKS.md` say what `docs/benchmarks.csv` says.
//!
//! A table whose first cell begins with a name in back ticks shows ratios of the rows with that name: each column is a
//! number of tasks, and the first cell of a row is `side ÷ against`.

use super::tree::Tree;

const PAGE: &str = "docs/BENCHMARKS.md";
const DATA: &str = "docs/benchmarks.csv";

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let (Some(page), Some(data)) = (tree.get(PAGE), tree.get(DATA)) else {
        return vec![format!("{PAGE} or {DATA} is missing")];
    };
    let data: Vec<Vec<String>> = data.text.lines().map(fields).collect();
    let mut findings = Vec::new();
    let mut heading: Option<(String, Vec<String>)> = None;
    for (number, line) in page.text.lines().enumerate() {
        let Some(cells) = cells(line) else {
            heading = None;
            continue;
        };
        let Some((question, tasks)) = &heading else {
            heading = Some((question(&cells), cells[1..].to_vec()));
            continue;
        };
        if question.is_empty() || cells[0].starts_with("---") {
            continue;
        }
        let Some((side, against)) = cells[0].split_once(" ÷ ") else {
            findings.push(format!("{PAGE}:{}: {} is no `side ÷ against`", number + 1, cells[0]));
            continue;
        };
        for (tasks, ratio) in tasks.iter().zip(&cells[1..]) {
            let wanted = [question.as_str(), tasks, side, against, ratio];
            if !data.iter().any(|row| row.iter().take(5).eq(wanted)) {
                findings.push(format!("{PAGE}:{}: {DATA} has no row {}", number + 1, wanted.join(" | ")));
            }
        }
    }
    findings
}

/// The cells of a row of a table.
fn cells(line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(line.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// The name in back ticks at the beginning of the first cell; empty if there is none.
fn question(cells: &[String]) -> String {
    let name = cells[0].strip_prefix('`').and_then(|rest| rest.split_once('`'));
    name.map_or(String::new(), |(name, _)| name.to_owned())
}

/// The fields of a line of CSV. A field in quotation marks may hold commas.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    for sign in line.chars() {
        match sign {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            other => {
                if let Some(field) = fields.last_mut() {
                    field.push(other);
                }
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(page: &str) -> Vec<String> {
        let data = "question,tasks,side,against,ratio,per_second\na,1,run,\"raw, by hand\",0.93,5\na,16,run,raw,0.86,5\n";
        check(&Tree::of(&[(PAGE, page), (DATA, data)]))
    }

    #[test]
    fn a_ratio_that_was_not_measured_is_found() {
        assert_eq!(found("| `a`, tasks | 1 |\n|---|--:|\n| run ÷ raw, by hand | 0.93 |\n"), [""; 0]);
        assert_eq!(
            found("| `a`, tasks | 1 | 16 |\n|---|--:|--:|\n| run ÷ raw | 0.93 | 0.86 |\n"),
            ["docs/BENCHMARKS.md:3: docs/benchmarks.csv has no row a | 1 | run | raw | 0.93"]
        );
        assert_eq!(found("| `b`, tasks | 16 |\n|---|--:|\n| run ÷ raw | 0.86 |\n").len(), 1);
    }

    #[test]
    fn a_row_that_is_no_ratio_is_found() {
        let row = "| `a`, tasks | 1 |\n|---|--:|\n| run / raw | 9.99 |\n";
        assert_eq!(found(row), ["docs/BENCHMARKS.md:3: run / raw is no `side ÷ against`"]);
    }

    #[test]
    fn a_page_or_data_that_is_gone_is_found() {
        assert_eq!(check(&Tree::default()).len(), 1);
        assert_eq!(check(&Tree::of(&[(PAGE, "")])).len(), 1);
    }

    #[test]
    fn a_table_of_words_is_free() {
        assert_eq!(found("| goal | state |\n|---|---|\n| run ÷ raw | missed |\n"), [""; 0]);
    }
}
