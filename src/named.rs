//! Closed sets with names: the one way an option of the experiment file becomes an enum.
//!
//! Start at [`NamedEnum`]; [`named_enum!`](crate::named_enum) declares one. Every name a user can write stands
//! beside its variant, so a new option is one line, and messages can list what is allowed.

/// An enum whose variants have names that users write and read.
pub trait NamedEnum: Copy + Eq + 'static {
    /// Every variant, in the order of declaration.
    const ALL: &'static [Self];

    /// The name in TOML, Parquet and figures.
    fn name(self) -> &'static str;

    /// The variant of that name.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|v| v.name() == name)
    }

    /// Every name, in the order of declaration.
    fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|v| v.name()).collect()
    }
}

/// Declares an enum with a name for each variant; it gets [`NamedEnum`], `Display`, `FromStr`, and serde by name.
#[macro_export]
macro_rules! named_enum {
    ($(#[$meta:meta])* pub enum $Name:ident { $($(#[$vmeta:meta])* $Variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $Name { $($(#[$vmeta])* #[serde(rename = $text)] $Variant),+ }

        impl $crate::named::NamedEnum for $Name {
            const ALL: &'static [Self] = &[$(Self::$Variant),+];
            fn name(self) -> &'static str {
                match self { $(Self::$Variant => $text),+ }
            }
        }

        impl std::str::FromStr for $Name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let unknown = || format!("`{text}` is none of {}", <Self as $crate::named::NamedEnum>::names().join(", "));
                <Self as $crate::named::NamedEnum>::from_name(text).ok_or_else(unknown)
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::named::NamedEnum::name(*self))
            }
        }
    };
}
