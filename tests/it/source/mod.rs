//! Rules for the source of the server: which module imports which, and how large files and functions may become.
//!
//! The list of imports in the documentation of `src/lib.rs` is the rule for the top modules. Each module has a line
//! there. It imports exactly the modules that its line names, and each of those has its line below. So no import goes
//! upward, and none closes a circle.
//!
//! Imports between the files of a folder close no circle either. A folder in the folder counts as one file, and so does
//! `mod.rs`. A file imports `mod.rs` if it names an item that `mod.rs` defines. `mod.rs` imports a file if it names one
//! of that file's items. `mod name;` is no import, nor is a `pub use` whose name `mod.rs` itself does not use. If a
//! file names an item by way of a `pub use` (or of another file's `use`), it imports the file that defines the item.
//!
//! The rules leave out items that only tests, fuzz targets, loom or Miri compile, and the files of such modules. But
//! they find `unsafe` in those too. Lists of exceptions name each place that breaks a rule, with the reason. The test
//! fails for an exception that is no longer needed.

mod scan;

use scan::File;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Most lines of a file, without its tests.
const FILE_LINES_MAX: usize = 700;
/// Most lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Most parameters of a function, besides `self`.
const PARAMETERS_MAX: usize = 5;

/// The only files with `unsafe`.
const UNSAFE: [&str; 3] = ["store/arena.rs", "store/item.rs", "worker/mailbox"];

/// Files that may be longer.
const LONG_FILES: &[(&str, &str)] = &[];
/// Functions that may be longer. They are lists, and a part of a list is no easier to read than the whole.
const LONG_FUNCTIONS: &[(&str, &str)] =
    &[("admin/stats/general.rs", "put_general"), ("admin/stats/settings.rs", "put_settings")];
/// Functions that may have more parameters.
const MANY_PARAMETERS: &[(&str, &str, &str)] =
    &[("store/mod.rs", "put", "a key, a value and all that is stored with them, which no caller has in one place")];
/// Imports between files of one folder that may close a circle.
const BACKWARD: &[(&str, &str, &str)] = &[];

/// The files of the server by their modules, without the files that only tests have.
struct Source {
    files: BTreeMap<Vec<String>, File>,
}

/// An import of one file by another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Arrow<'a> {
    from: &'a File,
    to: &'a File,
    line: usize,
}

impl PartialEq for File {
    fn eq(&self, other: &File) -> bool {
        self.name == other.name
    }
}

impl Eq for File {}

impl Source {
    fn new(files: impl IntoIterator<Item = File>) -> Source {
        let mut files: BTreeMap<_, _> = files.into_iter().map(|file| (file.module.clone(), file)).collect();
        let tests = files.values().flat_map(|file| file.test_modules.iter().map(move |name| (file, name)));
        let tests: Vec<Vec<String>> = tests
            .map(|(file, name)| {
                let beside = file.module.split_last().map_or(&[][..], |(_, folder)| folder);
                let places = [&file.module, beside].map(|folder| [folder, std::slice::from_ref(name)].concat());
                // `#[path]` occurs only with tests. It names a file beside the file with the attribute.
                places.into_iter().find(|place| files.contains_key(place)).unwrap_or_default()
            })
            .filter(|place| !place.is_empty())
            .collect();
        files.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        Source { files }
    }

    /// The file that defines the item of a path. The path starts at the root of the crate.
    fn file_of(&self, path: &[String]) -> Option<&File> {
        let mut path = path.to_vec();
        // A name may be re-exported more than once. The limit ends a circle of re-exports.
        for _ in 0..10 {
            let module =
                (0..=path.len()).rev().map(|len| &path[..len]).find(|module| self.files.contains_key(*module))?;
            let file = &self.files[module];
            let Some((name, rest)) = path[module.len()..].split_first() else { return Some(file) };
            let Some(origin) = file.imported.get(name) else { return Some(file) };
            path = [origin, rest].concat();
        }
        None
    }

    fn arrows(&self) -> Vec<Arrow<'_>> {
        let mentions = self.files.values().flat_map(|from| from.mentions.iter().map(move |mention| (from, mention)));
        let arrows = mentions.filter_map(|(from, mention)| {
            let to = self.file_of(&mention.path)?;
            Some(Arrow { from, to, line: mention.line })
        });
        arrows.filter(|arrow| arrow.from != arrow.to).collect()
    }
}

/// The imports of each top module, as the list in the documentation of the crate gives them.
fn picture(lib: &str) -> Vec<(String, BTreeSet<String>)> {
    let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let lines = lib.lines().filter_map(|line| line.strip_prefix("//! "));
    let lines = lines.filter_map(|line| {
        let (module, imports) = line.trim().split_once(':')?;
        let imports: Vec<&str> = imports.split(',').map(str::trim).filter(|import| !import.is_empty()).collect();
        let is_line = is_name(module) && imports.iter().all(|import| is_name(import));
        is_line.then(|| (module.to_owned(), imports.into_iter().map(str::to_owned).collect()))
    });
    lines.collect()
}

/// The errors in the imports between top modules.
fn check_picture(source: &Source, picture: &[(String, BTreeSet<String>)]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut arrows: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for Arrow { from, to, line } in source.arrows() {
        // The root of the crate only declares modules.
        let Some(above) = from.module.first() else { continue };
        let below = to.module.first().map_or("lib", String::as_str);
        if above != below {
            let place = format!("{}:{line}", from.name);
            let places = arrows.entry((above, below)).or_default();
            if places.len() < 3 && !places.contains(&place) {
                places.push(place);
            }
        }
    }
    for ((above, below), places) in &arrows {
        let line = picture.iter().find(|(module, _)| module == above);
        if !line.is_some_and(|(_, imports)| imports.contains(*below)) {
            complaints.push(format!("{above} imports {below}, says no picture: {}", places.join(" ")));
        }
    }
    for (at, (above, imports)) in picture.iter().enumerate() {
        for below in imports {
            if !arrows.contains_key(&(above, below)) {
                complaints.push(format!("{above} imports {below}, says the picture, but not the source"));
            }
            if !picture[at + 1..].iter().any(|(module, _)| module == below) {
                complaints.push(format!("{above} imports {below}, which the picture does not have below it"));
            }
        }
    }
    let drawn: BTreeSet<&str> = picture.iter().map(|(module, _)| module.as_str()).collect();
    let present: BTreeSet<&str> = source.files.keys().filter_map(|module| Some(module.first()?.as_str())).collect();
    complaints.extend(
        drawn.symmetric_difference(&present).map(|module| format!("{module} is not in the picture, or in it alone")),
    );
    complaints
}

/// The circles of imports within folders, and the exceptions that are not needed.
fn check_circles(source: &Source, backward: &[(&str, &str, &str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut needed = BTreeSet::new();
    let arrows = source.arrows();
    let folders: BTreeSet<&[String]> = source
        .files
        .keys()
        .filter_map(|module| Some(module.split_last()?.1))
        .filter(|folder| !folder.is_empty())
        .collect();
    for folder in folders {
        let entry = |file: &File| {
            let rest = file.module.strip_prefix(folder)?;
            Some(rest.first().map_or_else(|| "mod".to_owned(), String::clone))
        };
        let mut edges: BTreeMap<(String, String), Vec<&Arrow<'_>>> = BTreeMap::new();
        for arrow in &arrows {
            if let (Some(from), Some(to)) = (entry(arrow.from), entry(arrow.to))
                && from != to
            {
                edges.entry((from, to)).or_default().push(arrow);
            }
        }
        let is_excepted =
            |arrow: &Arrow<'_>| backward.iter().any(|(from, to, _)| *from == arrow.from.name && *to == arrow.to.name);
        let kept: BTreeSet<(&str, &str)> = (edges.iter())
            .filter(|(_, arrows)| !arrows.iter().all(|arrow| is_excepted(arrow)))
            .map(|((from, to), _)| (from.as_str(), to.as_str()))
            .collect();
        let every = edges.keys().map(|(from, to)| (from.as_str(), to.as_str())).collect();
        for ((from, to), arrows) in &edges {
            let places = || {
                let names = arrows.iter().map(|arrow| (&*arrow.from.name, &*arrow.to.name)).collect::<BTreeSet<_>>();
                let first = |(from, to)| {
                    let arrow = arrows.iter().find(|arrow| arrow.from.name == from && arrow.to.name == to);
                    format!("{from}:{} {to}", arrow.map_or(0, |arrow| arrow.line))
                };
                names.into_iter().map(first).collect::<Vec<_>>().join(", ")
            };
            if kept.contains(&(from.as_str(), to.as_str())) {
                if reaches(&kept, to, from) {
                    complaints.push(format!("a circle in {}: {from} imports {to}: {}", folder.join("/"), places()));
                }
            } else if reaches(&every, to, from) {
                needed.extend(arrows.iter().map(|arrow| (arrow.from.name.as_str(), arrow.to.name.as_str())));
            }
        }
    }
    for (from, to, _) in backward {
        if !needed.contains(&(from, to)) {
            complaints.push(format!("no circle has {from} importing {to}: that is no exception"));
        }
    }
    complaints
}

fn reaches(edges: &BTreeSet<(&str, &str)>, start: &str, goal: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(place) = open.pop() {
        if place == goal {
            return true;
        }
        if seen.insert(place) {
            open.extend(edges.iter().filter(|(from, _)| *from == place).map(|(_, to)| to));
        }
    }
    false
}

/// The places that break a rule and are no exceptions, and the exceptions that do not break the rule.
fn compare<'a>(
    what: &str,
    found: BTreeMap<(&'a str, &'a str), String>,
    excepted: &[(&'a str, &'a str)],
) -> Vec<String> {
    let new = found.iter().filter(|(place, _)| !excepted.contains(place));
    let mut complaints: Vec<String> = new.map(|((file, name), how)| format!("{what}: {file} {name} {how}")).collect();
    let gone = excepted.iter().filter(|place| !found.contains_key(*place));
    complaints.extend(gone.map(|(file, name)| format!("{what}: {file} {name} is no exception any more")));
    complaints
}

fn long_files(source: &Source) -> BTreeMap<(&str, &str), String> {
    let files = source.files.values().filter(|file| file.lines > FILE_LINES_MAX);
    files.map(|file| ((file.name.as_str(), ""), format!("{} lines", file.lines))).collect()
}

fn long_functions(source: &Source) -> BTreeMap<(&str, &str), String> {
    let functions = source.files.values().flat_map(|file| file.functions.iter().map(move |function| (file, function)));
    let long = functions.filter(|(_, function)| function.lines > FUNCTION_LINES_MAX);
    long.map(|(file, function)| ((file.name.as_str(), function.name.as_str()), format!("{} lines", function.lines)))
        .collect()
}

fn many_parameters(source: &Source) -> BTreeMap<(&str, &str), String> {
    let functions = source.files.values().flat_map(|file| file.functions.iter().map(move |function| (file, function)));
    let many = functions.filter(|(_, function)| function.parameters > PARAMETERS_MAX);
    many.map(|(file, function)| {
        ((file.name.as_str(), function.name.as_str()), format!("{} parameters", function.parameters))
    })
    .collect()
}

fn check_unsafe(source: &Source) -> Vec<String> {
    let files = source.files.values().filter(|file| !UNSAFE.iter().any(|place| file.name.starts_with(place)));
    files.flat_map(|file| file.unsafe_lines.iter().map(move |line| format!("unsafe: {}:{line}", file.name))).collect()
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The files of the server, and the text of `lib.rs`.
static SERVER: LazyLock<(Source, String)> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files_below(&root, &mut paths);
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("a file of the source");
    let files = paths.iter().map(|path| {
        let name = path.strip_prefix(&root).expect("it is below").to_str().expect("a plain name");
        scan::read(name, &read(path))
    });
    (Source::new(files), read(&root.join("lib.rs")))
});

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn modules_import_what_the_picture_says() {
    assert_none(&check_picture(&SERVER.0, &picture(&SERVER.1)));
}

#[test]
fn files_of_a_folder_import_in_no_circle() {
    assert_none(&check_circles(&SERVER.0, BACKWARD));
}

#[test]
fn files_and_functions_are_short() {
    let files: Vec<(&str, &str)> = LONG_FILES.iter().map(|(file, _)| (*file, "")).collect();
    let mut complaints = compare("a long file", long_files(&SERVER.0), &files);
    complaints.extend(compare("a long function", long_functions(&SERVER.0), LONG_FUNCTIONS));
    assert_none(&complaints);
}

#[test]
fn functions_have_few_parameters() {
    let excepted: Vec<(&str, &str)> = MANY_PARAMETERS.iter().map(|(file, name, _)| (*file, *name)).collect();
    assert_none(&compare("many parameters", many_parameters(&SERVER.0), &excepted));
}

#[test]
fn unsafe_has_three_places() {
    assert_none(&check_unsafe(&SERVER.0));
}

fn made_up(files: &[(&str, &str)]) -> Source {
    Source::new(files.iter().map(|(name, text)| scan::read(name, text)))
}

#[track_caller]
fn assert_picture(files: &[(&str, &str)], lib: &str, complaints: &[&str]) {
    assert_eq!(check_picture(&made_up(files), &picture(lib)), complaints);
}

#[test]
fn imports_are_found_however_they_are_written() {
    for text in [
        "use crate::low::Thing;",
        "use std::fmt;\nuse crate::{other::{self, A}, low::{B as C, D}};",
        "pub use crate::low::*;",
        "fn f() -> crate::low::Thing { todo!() }",
        "fn f() { let x = super::low::g(1); }",
        "mod inner { use super::super::low; }",
        "use crate::other; use super::low as deep; fn f() { deep::f(); }",
        "#[cfg(not(test))] use crate::low::Thing;",
        "#[cfg(any(test, feature = \"more\"))] use crate::low::Thing;",
        "fn f() { let x = '\"'; crate::low::f(); } // \"",
        "impl<'a> A<'a> { fn f(b: &'a str) -> &'a str { crate::low::f(b, 'a', b'\\'', '\\\\') } }",
        "macro_rules! m { () => { $crate::low::f() } }",
    ] {
        let files = [("high.rs", text), ("low/mod.rs", ""), ("other.rs", "")];
        let found = check_picture(&made_up(&files), &picture("//! high: other\n//! low:\n//! other:\n"));
        assert!(
            found.iter().any(|complaint| complaint.starts_with("high imports low, says no picture: high.rs:")),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_import_is_not_found() {
    for text in [
        "// use crate::low::Thing;",
        "//! [`crate::low`]",
        "/* /* */ use crate::low; */",
        "const A: &str = \"crate::low::f()\";",
        "const A: &str = r#\"\" crate::low::f() \"#;",
        "const A: &[u8] = br\"\\\"; const B: &str = \"crate::low\";",
        "pub(in crate::low) fn f() {}",
        "use std::low::Thing; fn f() { low::f(); std::crate_::low(); }",
        "#[cfg(test)] mod tests { use crate::low; fn f() {} }",
        "#[cfg(all(test, not(loom)))] use crate::low::{A, B};",
        "enum A { #[cfg(test)] B(crate::low::C), D }",
        "fn f() { match a { #[cfg(test)] A { b, .. } => crate::low::f(), C => {} } }",
        "fn f() { #[cfg(fuzzing)] let a = crate::low::f({ 1 }); }",
        "#[test] fn f<A, B>(a: A, b: B) { crate::low::f() }",
    ] {
        assert_picture(&[("high/mod.rs", text), ("low/mod.rs", "")], "//! high:\n//! low:\n", &[]);
    }
    let (declared, picture) = ("#[cfg(test)] mod tests;", "//! high:\n//! low:\n");
    for (file, tests) in
        [("high/mod.rs", "high/tests.rs"), ("high/mod.rs", "high/tests/mod.rs"), ("high/file.rs", "high/tests.rs")]
    {
        assert_picture(&[(file, declared), (tests, "use crate::low;"), ("low/mod.rs", "")], picture, &[]);
    }
}

#[test]
fn the_picture_is_neither_more_nor_less_than_the_imports() {
    let files = [("high.rs", "use crate::low::Thing;"), ("low/mod.rs", "")];
    assert_picture(&files, "//! ```text\n//! high: low\n//! low:\n//! ```\n", &[]);
    assert_picture(&files, "//! high:\n//! low:\n", &["high imports low, says no picture: high.rs:1"]);
    assert_picture(
        &files,
        "//! high: low, lower\n//! low:\n//! lower:\n",
        &["high imports lower, says the picture, but not the source", "lower is not in the picture, or in it alone"],
    );
    assert_picture(
        &files,
        "//! high: low\n",
        &["high imports low, which the picture does not have below it", "low is not in the picture, or in it alone"],
    );
}

#[test]
fn nothing_is_imported_upward_or_in_a_circle() {
    let files = [("high.rs", "use crate::low::Thing;"), ("low/mod.rs", ""), ("low/deep.rs", "use crate::high;")];
    assert_picture(&files, "//! high: low\n//! low:\n", &["low imports high, says no picture: low/deep.rs:1"]);
    assert_picture(
        &files,
        "//! high: low\n//! low: high\n",
        &["low imports high, which the picture does not have below it"],
    );
}

#[test]
fn a_name_that_is_passed_on_is_imported_from_where_it_stands() {
    let files = [
        ("high.rs", "use crate::middle::{Passed, own};"),
        ("middle/mod.rs", "mod part; pub use part::Passed; pub fn own() {}"),
        ("middle/part.rs", "pub use crate::low::Thing as Passed; use super::Local;"),
        ("low.rs", ""),
    ];
    assert_picture(&files, "//! high: middle, low\n//! middle: low\n//! low:\n", &[]);
}

#[test]
fn the_program_has_modules_beside_its_library() {
    let files = [
        ("main.rs", "mod tool; use corecached::low; fn main() { tool::run() }"),
        ("tool/mod.rs", "use corecached::exit::Exit; use crate::tool::part; fn f() { part::g() }"),
        ("tool/part.rs", ""),
        ("low.rs", ""),
        ("exit.rs", ""),
    ];
    assert_picture(&files, "//! main: tool, low\n//! tool: exit\n//! low:\n//! exit:\n", &[]);
    let upward =
        [("main.rs", ""), ("tool/mod.rs", "use corecached::low;"), ("low.rs", "fn f() { crate::tool::run() }")];
    assert_picture(
        &upward,
        "//! main:\n//! tool:\n//! low:\n",
        &["low imports tool, says no picture: low.rs:1", "tool imports low, says no picture: tool/mod.rs:1"],
    );
}

#[test]
fn circles_within_a_folder_are_found() {
    #[track_caller]
    fn check(files: &[(&str, &str)], backward: &[(&str, &str, &str)], expected: &[&str]) {
        assert_eq!(check_circles(&made_up(files), backward), expected);
    }
    let two = [("a/mod.rs", "mod b; mod c;"), ("a/b.rs", "use super::c::C;"), ("a/c.rs", "use crate::a::b;")];
    let (forth, back) = ("a circle in a: b imports c: a/b.rs:1 a/c.rs", "a circle in a: c imports b: a/c.rs:1 a/b.rs");
    check(&two, &[], &[forth, back]);
    check(&two, &[("a/c.rs", "a/b.rs", "because")], &[]);
    let none = "no circle has a/c.rs importing a/mod.rs: that is no exception";
    check(&two, &[("a/c.rs", "a/b.rs", "because"), ("a/c.rs", "a/mod.rs", "because")], &[none]);
    check(
        &two[..2],
        &[("a/b.rs", "a/c.rs", "because")],
        &["no circle has a/b.rs importing a/c.rs: that is no exception"],
    );

    // A child that names an item of its parent, while the parent names an item of the child.
    let child = ("a/b.rs", "use super::A; pub struct B(A);");
    let found = ["a circle in a: b imports mod: a/b.rs:1 a/mod.rs", "a circle in a: mod imports b: a/mod.rs:1 a/b.rs"];
    for parent in [
        "mod b; use b::B; pub struct A;",
        "mod b; pub struct A; fn f() { b::g(); }",
        "mod b; pub use b::B; pub struct A; fn f(b: B) {}",
    ] {
        check(&[("a/mod.rs", parent), child], &[], &found);
    }
    for parent in ["mod b; pub struct A;", "mod b; pub use b::B; pub struct A;"] {
        check(&[("a/mod.rs", parent), child], &[], &[]);
    }

    // A folder in the folder counts as one file, and the imports of its files count as its own.
    let folder = [("a/b/mod.rs", "mod d;"), ("a/b/d.rs", "use crate::a::c::C;"), ("a/c.rs", "use super::b::B;")];
    check(
        &folder,
        &[],
        &["a circle in a: b imports c: a/b/d.rs:1 a/c.rs", "a circle in a: c imports b: a/c.rs:1 a/b/mod.rs"],
    );
}

#[test]
fn lines_and_parameters_are_counted() {
    let long = "    f();\n".repeat(70);
    let text = format!(
        "fn many<A: Fn(B, C) -> D, E>(a: A, b: [u8; 2], c: HashMap<A, B>, d: fn(A, B) -> C, e: (A, B), f: F,) {{}}\n\
         fn few(&mut self, a: A, b: B, c: C, d: D, e: E) -> F {{}}\n\
         fn long() {{\n{long}}}\n\
         #[cfg(test)]\nmod tests {{\n fn many(a: A, b: B, c: C, d: D, e: E, f: F) {{}}\n{}}}\n",
        "\n".repeat(1000),
    );
    let source = made_up(&[("a.rs", &text), ("b.rs", &"\n".repeat(701)), ("c.rs", "fn f() { unsafe { g() } }")]);
    assert_eq!(compare("many", many_parameters(&source), &[]), ["many: a.rs many 6 parameters"]);
    assert_eq!(compare("long", long_functions(&source), &[]), ["long: a.rs long 72 lines"]);
    assert_eq!(compare("long", long_files(&source), &[]), ["long: b.rs  701 lines"]);
    let excepted = [("b.rs", ""), ("c.rs", "")];
    assert_eq!(compare("long", long_files(&source), &excepted), ["long: c.rs  is no exception any more"]);
    assert_eq!(check_unsafe(&source), ["unsafe: c.rs:1"]);
}
