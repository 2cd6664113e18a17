pub struct StopFlag(std::sync::Arc<std::sync::atomic::AtomicBool>);
impl StopFlag { pub fn install() -> std::io::Result<Self> { Ok(Self(Default::default())) } pub fn flag(&self) -> &std::sync::atomic::AtomicBool { &self.0 } }
