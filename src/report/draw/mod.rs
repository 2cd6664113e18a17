//! Drawing: from shapes in figure units to SVG text and PNG bytes.
//!
//! Start at [`Scene`]. A figure is a list of shapes in units of one CSS pixel; [`svg::render`] writes them with full
//! precision, [`raster::render`] paints the same list at any scale, so the two can never disagree.
//! [`Panel`] turns data into shapes. Nothing here knows what a run is.
//!
//! Why not a plotting library's charts: their backends round every coordinate to a whole pixel, have no dashes, and
//! their legends lie over the data.

pub mod axis;
pub mod fonts;
pub mod legend;
pub mod panel;
pub mod raster;
pub mod scene;
pub mod svg;
pub mod thin;

pub use axis::Axis;
pub use legend::{Entry, Legend, Swatch};
pub use panel::{Panel, Rect};
pub use scene::{Anchor, Rgb, Scene, Shape, Stroke};
