//! The recognised columns of a Parquet file, and rows put together from them.
//!
//! Parquet stores every leaf of a nested column by itself, with two numbers per value: at which depth
//! the value or what holds it is missing (the definition level), and which list it continues (the
//! repetition level). Dremel, <https://research.google/pubs/pub36632/>, section 4.

use std::sync::Arc;
use std::vec;

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{
    BoolType, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::schema::types::{SchemaDescriptor, Type};

use super::finite_file::FiniteFile;
use super::pages::pages;
use crate::prompts::fields::{Cell, recognised, recognised_part};

/// Rows of a row group.
pub(super) fn rows_of(group: &RowGroupMetaData) -> Result<usize> {
    let rows = group.num_rows();
    usize::try_from(rows).map_err(|_| ParquetError::General(format!("a row group of {rows} rows")))
}

/// A column, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Definition level from which on it is there.
    pub(super) defined: i16,
    pub(super) shape: Shape,
}

#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// A leaf: its number in the file.
    Leaf(usize),
    Struct(Vec<(&'static str, Node)>),
    List {
        /// Definition level from which on it has an entry.
        filled: i16,
        /// Repetition level of its second entry and those after.
        repeated: i16,
        item: Box<Node>,
    },
}

impl Node {
    /// The leaves below, in order.
    pub(super) fn leaves(&self) -> Vec<usize> {
        match &self.shape {
            Shape::Leaf(leaf) => vec![*leaf],
            Shape::Struct(fields) => fields.iter().flat_map(|(_, node)| node.leaves()).collect(),
            Shape::List { item, .. } => item.leaves(),
        }
    }

    /// Itself or, of a list, the entry.
    pub(super) fn item(&self) -> &Node {
        if let Shape::List { item, .. } = &self.shape { item.item() } else { self }
    }

    /// A field of a structure or of a list of structures.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
        let Shape::Struct(fields) = &self.item().shape else { return None };
        fields.iter().find(|(field, _)| *field == name).map(|(_, node)| node)
    }

    /// The same without one field of a structure.
    pub(super) fn without(&self, name: &str) -> Node {
        let mut node = self.clone();
        match &mut node.shape {
            Shape::Leaf(_) => {}
            Shape::Struct(fields) => fields.retain(|(field, _)| *field != name),
            Shape::List { item, .. } => **item = item.without(name),
        }
        node
    }
}

/// The recognised columns of a schema with their names.
pub(super) fn columns(schema: &SchemaDescriptor) -> Vec<(&'static str, Node)> {
    let mut leaf = 0;
    let fields = schema.root_schema().get_fields().iter();
    let columns = fields.filter_map(|field| {
        let node = node(field, 0, 0, &mut leaf);
        Some((recognised(field.name())?, node?))
    });
    columns.collect()
}

/// A type as it is read, or `None` if it holds no type that is; counts leaves on.
fn node(field: &Type, defined: i16, repeated: i16, leaf: &mut usize) -> Option<Node> {
    let info = field.get_basic_info();
    match info.repetition() {
        Repetition::REQUIRED => content(field, defined, repeated, leaf),
        Repetition::OPTIONAL => content(field, defined + 1, repeated, leaf),
        Repetition::REPEATED => {
            let (filled, repeated) = (defined + 1, repeated + 1);
            let item = Box::new(content(field, filled, repeated, leaf)?);
            Some(Node { defined, shape: Shape::List { filled, repeated, item } })
        }
    }
}

fn content(field: &Type, defined: i16, repeated: i16, leaf: &mut usize) -> Option<Node> {
    if field.is_primitive() {
        *leaf += 1;
        let read =
            !matches!(field.get_physical_type(), Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY);
        return read.then_some(Node { defined, shape: Shape::Leaf(*leaf - 1) });
    }
    let info = field.get_basic_info();
    let list = info.converted_type() == ConvertedType::LIST
        || matches!(info.logical_type_ref(), Some(LogicalType::List));
    if let (true, [entries]) = (list, field.get_fields())
        && entries.get_basic_info().repetition() == Repetition::REPEATED
    {
        let (filled, repeated) = (defined + 1, repeated + 1);
        // Between a list and its entries stands a group of its own, unless an old writer left it out.
        let item = match entries.is_group().then(|| entries.get_fields()) {
            Some([entry]) if entries.name() != "array" => node(entry, filled, repeated, leaf),
            _ => content(entries, filled, repeated, leaf),
        };
        let item = Box::new(item?);
        return Some(Node { defined, shape: Shape::List { filled, repeated, item } });
    }
    let mut fields = Vec::new();
    for part in field.get_fields() {
        // Leaves are counted whether they are read or not.
        let node = node(part, defined, repeated, leaf);
        fields.extend(recognised_part(part.name()).zip(node));
    }
    (!fields.is_empty()).then_some(Node { defined, shape: Shape::Struct(fields) })
}

/// Whether a column of bytes is declared to be text.
pub(super) fn is_text(column: &ColumnChunkMetaData) -> bool {
    let info = column.column_descr().self_type().get_basic_info();
    let text = [ConvertedType::UTF8, ConvertedType::ENUM, ConvertedType::JSON];
    text.contains(&info.converted_type())
        || matches!(info.logical_type_ref(), Some(LogicalType::String))
}

/// What of a leaf is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The values.
    Values,
    /// Of bytes and text only whether there are any: null for empty text, true for all else.
    Presence,
}

/// The values of a leaf over a run of rows.
pub(super) struct Leaf {
    /// Level at which a value is there.
    pub(super) most: i16,
    /// Definition levels; empty if every value is there.
    pub(super) definitions: Vec<i16>,
    /// Repetition levels; empty outside lists.
    pub(super) repetitions: Vec<i16>,
    /// Levels there are.
    pub(super) count: usize,
    values: vec::IntoIter<Cell>,
    at: usize,
}

impl Leaf {
    /// Reads `count` rows of a leaf, of which the first stands behind `skip` others of its row group.
    pub(super) fn read(
        file: &Arc<FiniteFile>,
        group: &RowGroupMetaData,
        leaf: usize,
        skip: usize,
        count: usize,
        wanted: Wanted,
    ) -> Result<Self> {
        let column = group.column(leaf);
        let run = || Run { file, group, leaf, skip, count };
        match column.column_type() {
            Physical::BYTE_ARRAY => {
                let (text, presence) = (is_text(column), wanted == Wanted::Presence);
                run().typed::<ByteArrayType>(|value| {
                    if presence {
                        let empty = text && value.data().is_empty();
                        return Ok(if empty { Cell::Null } else { Cell::Flag });
                    }
                    if text {
                        return Ok(Cell::Text(value.as_utf8()?.to_owned()));
                    }
                    Ok(Cell::Bytes(Bytes::copy_from_slice(value.data())))
                })
            }
            Physical::INT32 => run().typed::<Int32Type>(|value| Ok(number(&value))),
            Physical::INT64 => run().typed::<Int64Type>(|value| Ok(number(&value))),
            Physical::FLOAT => run().typed::<FloatType>(|value| Ok(number(&value))),
            Physical::DOUBLE => run().typed::<DoubleType>(|value| Ok(number(&value))),
            Physical::BOOLEAN => run().typed::<BoolType>(|_| Ok(Cell::Flag)),
            Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY => {
                Err(ParquetError::NYI("a type that is not read".to_owned()))
            }
        }
    }

    /// Both levels of the next value.
    fn levels(&self) -> Option<(i16, i16)> {
        let levels = |at: usize| {
            let definition = self.definitions.get(at).copied().unwrap_or(self.most);
            (definition, self.repetitions.get(at).copied().unwrap_or(0))
        };
        (self.at < self.count).then(|| levels(self.at))
    }

    fn take(&mut self) -> Result<Cell> {
        let (definition, _) = self.levels().ok_or_else(uneven)?;
        self.at += 1;
        if definition < self.most {
            return Ok(Cell::Null);
        }
        self.values.next().ok_or_else(uneven)
    }

    /// Whether each value is there and not an empty text, one per level; [`Wanted::Presence`] is enough.
    pub(super) fn present(&self) -> impl Iterator<Item = bool> {
        let mut values = self.values.as_slice().iter();
        (0..self.count).map(move |at| {
            let there = self.definitions.get(at).is_none_or(|&level| level == self.most);
            there && values.next().is_some_and(|value| *value != Cell::Null)
        })
    }
}

fn number(value: &impl ToString) -> Cell {
    Cell::Number(value.to_string())
}

/// What is wrong with columns that do not fit each other.
pub(super) const UNEVEN: &str = "its columns are of different lengths";

fn uneven() -> ParquetError {
    ParquetError::General(UNEVEN.to_owned())
}

/// Rows that are decoded at a time.
const BATCH: usize = 256;

struct Run<'a> {
    file: &'a Arc<FiniteFile>,
    group: &'a RowGroupMetaData,
    leaf: usize,
    skip: usize,
    count: usize,
}

impl Run<'_> {
    fn typed<T: DataType>(&self, cell: impl Fn(T::T) -> Result<Cell>) -> Result<Leaf> {
        let column = self.group.column(self.leaf);
        let description = column.column_descr_ptr();
        let (most, deepest) = (description.max_def_level(), description.max_rep_level());
        let pages = pages(Arc::clone(self.file), column, rows_of(self.group)?)?;
        let mut reader = ColumnReaderImpl::<T>::new(description, pages);
        let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rows, mut count) = (0, 0);
        let mut cells = Vec::new();
        if reader.skip_records(self.skip)? == self.skip {
            while rows < self.count {
                // A few rows at a time, so that whole pages are not kept for the sake of their values.
                let (read, _, levels) = reader.read_records(
                    BATCH.min(self.count - rows),
                    (most > 0).then_some(&mut definitions),
                    (deepest > 0).then_some(&mut repetitions),
                    &mut values,
                )?;
                if read == 0 {
                    break;
                }
                rows += read;
                count += levels;
                for value in values.drain(..) {
                    cells.push(cell(value)?);
                }
            }
        }
        if rows < self.count {
            return Err(ParquetError::General(
                "a column has fewer rows than the file's footer says".to_owned(),
            ));
        }
        Ok(Leaf { most, definitions, repetitions, count, values: cells.into_iter(), at: 0 })
    }
}

/// Leaves of a run of rows, by their numbers, that are put together to cells.
pub(super) struct Assembly(pub(super) Vec<(usize, Leaf)>);

impl Assembly {
    /// The next row's value of a column.
    pub(super) fn cell(&mut self, node: &Node) -> Result<Cell> {
        let (definition, _) = self.levels(node)?;
        if definition < node.defined {
            self.pass(node)?;
            return Ok(Cell::Null);
        }
        match &node.shape {
            Shape::Leaf(leaf) => self.leaf(*leaf)?.take(),
            Shape::Struct(fields) => {
                let field = |(name, node): &(&'static str, Node)| Ok((*name, self.cell(node)?));
                Ok(Cell::Struct(fields.iter().map(field).collect::<Result<_>>()?))
            }
            Shape::List { filled, repeated, item } => {
                let mut items = Vec::new();
                if definition < *filled {
                    self.pass(item)?;
                    return Ok(Cell::List(items));
                }
                loop {
                    items.push(self.cell(item)?);
                    match self.levels(item) {
                        Ok((_, repetition)) if repetition == *repeated => {}
                        // The row, or the list around this one, goes on or ends.
                        _ => return Ok(Cell::List(items)),
                    }
                }
            }
        }
    }

    fn leaf(&mut self, leaf: usize) -> Result<&mut Leaf> {
        let found = self.0.iter_mut().find(|(number, _)| *number == leaf);
        found.map(|(_, leaf)| leaf).ok_or_else(uneven)
    }

    fn levels(&mut self, node: &Node) -> Result<(i16, i16)> {
        let first = match &node.shape {
            Shape::Leaf(leaf) => *leaf,
            Shape::Struct(fields) => return self.levels(&fields.first().ok_or_else(uneven)?.1),
            Shape::List { item, .. } => return self.levels(item),
        };
        self.leaf(first)?.levels().ok_or_else(uneven)
    }

    /// Passes over one level of every leaf below.
    fn pass(&mut self, node: &Node) -> Result<()> {
        for leaf in node.leaves() {
            self.leaf(leaf)?.take()?;
        }
        Ok(())
    }
}
