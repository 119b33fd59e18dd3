//! JSON into the types of this crate.

use serde::de::{Deserialize, DeserializeOwned};
use serde_json::Value;

/// JSON that is not of the expected shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {message}")]
pub struct ShapeError {
    /// Path of the field, as in `status.run.number`; `.` for the whole document.
    pub field: String,
    /// What was found there, and what was expected.
    pub message: String,
}

/// Reads a value.
///
/// # Errors
/// [`ShapeError`] for the first field of the wrong type, or one that is missing.
pub fn value<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, ShapeError> {
    serde_path_to_error::deserialize(value).map_err(|error| shape(&error))
}

/// Reads a JSON text.
///
/// # Errors
/// As [`value()`], and when the text is not JSON.
pub fn slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, ShapeError> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| shape(&error))?;
    reader.end().map_err(|error| ShapeError { field: ".".to_owned(), message: error.to_string() })?;
    Ok(read)
}

fn shape(error: &serde_path_to_error::Error<serde_json::Error>) -> ShapeError {
    ShapeError { field: error.path().to_string(), message: error.inner().to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::Task;
    use crate::view::{ExecutionView, List};

    #[test]
    fn wrong_type_names_its_field() {
        let task = json!({"metadata": {"name": "a"}, "status": {"run": {"number": "3"}}});
        let error = value::<Task>(&task).unwrap_err();
        assert_eq!(error.field, "status.run.number");
        assert!(error.message.contains("invalid type: string \"3\", expected u32"), "{error}");
        let error = slice::<Task>(task.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.field, "status.run.number");
        let list = json!({"items": [{"id": 7}]});
        assert_eq!(value::<List<ExecutionView>>(&list).unwrap_err().field, "items[0].id");
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let task = json!({"metadata": {"name": "a", "new": 1}, "status": {"run": {"number": 3, "new": {}}}, "new": []});
        assert_eq!(value::<Task>(&task).unwrap().status.run.unwrap().number, 3);
    }

    #[test]
    fn text_that_is_not_json_is_an_error() {
        assert_eq!(slice::<Task>(b"<html>").unwrap_err().field, ".");
        assert!(slice::<Task>(b"{} {}").is_err());
    }
}
