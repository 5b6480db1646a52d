//! Backend URLs: `sqlite:corecast.db`, `memory:`, `embedded:`, `none:`, `static:…`.
