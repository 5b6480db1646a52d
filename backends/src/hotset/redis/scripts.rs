//! What must happen at once inside Redis. Each script touches the keys it is given, which
//! share a slot.

use crate::redis_nodes::LuaScript;

/// Sets a session unless there is a tombstone or an entry of the same run.
/// KEYS: session. ARGV: run id, value, ms.
const FILL: &str = r"
local old = redis.call('GET', KEYS[1])
if old and (old == 'revoked' or string.sub(old, 1, #ARGV[1]) == ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
";

/// Adds to a history what begins at its top + 1; what it has already is skipped; after a hole
/// the history is deleted. Without one nothing happens.
/// KEYS: history. ARGV: first number, messages at most, ms; then ms, user, name, text each.
const APPEND: &str = r"
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local top = 0
if #last == 1 then
  top = tonumber(string.match(last[1][1], '^%d+'))
elseif redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local first = tonumber(ARGV[1])
if first > top + 1 then
  redis.call('DEL', KEYS[1])
  return -1
end
local added = 0
for i = 4, #ARGV, 4 do
  local seq = first + (i - 4) / 4
  if seq > top then
    redis.call('XADD', KEYS[1], string.format('%.0f-0', seq),
      'ms', ARGV[i], 'user', ARGV[i + 1], 'name', ARGV[i + 2], 'text', ARGV[i + 3])
    added = added + 1
  end
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return added
";

/// Replaces a history and ends the rebuild. An empty history is a stream without entries.
/// KEYS: history, rebuild. ARGV: first number, 1 to keep an empty one, ms; then ms, user,
/// name, text each.
const REBUILD: &str = r"
redis.call('DEL', KEYS[1], KEYS[2])
local first = tonumber(ARGV[1])
for i = 4, #ARGV, 4 do
  redis.call('XADD', KEYS[1], string.format('%.0f-0', first + (i - 4) / 4),
    'ms', ARGV[i], 'user', ARGV[i + 1], 'name', ARGV[i + 2], 'text', ARGV[i + 3])
end
if #ARGV == 3 then
  if ARGV[2] ~= '1' then return 0 end
  redis.call('XADD', KEYS[1], '0-1', 'ms', '0')
  redis.call('XDEL', KEYS[1], '0-1')
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
";

/// The id of the last entry and the entries up to an id, the newest first; nothing without
/// a history. KEYS: history. ARGV: last id, entries at most.
const PAGE: &str = r"
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #last == 0 then
  if redis.call('EXISTS', KEYS[1]) == 0 then return false end
  return {'0-0', {}}
end
return {last[1][1], redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', ARGV[2])}
";

/// KEYS: routes. ARGV: gateway, incarnation, ms.
const SET_ROUTE: &str = r"
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
";

/// Removes a route where it still is of this incarnation. KEYS: routes. ARGV: gateway,
/// incarnation.
const DROP_ROUTE: &str = r"
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
";

/// KEYS: offline list. ARGV: frame, frames at most, ms.
const PUSH_OFFLINE: &str = r"
local max = tonumber(ARGV[2])
if max == 0 then return redis.call('DEL', KEYS[1]) end
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], 0, max - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
";

/// KEYS: offline list.
const TAKE_OFFLINE: &str = r"
local frames = redis.call('LRANGE', KEYS[1], 0, -1)
redis.call('DEL', KEYS[1])
return frames
";

/// All scripts, with their hashes.
pub(super) struct Scripts {
    pub(super) fill: LuaScript,
    pub(super) append: LuaScript,
    pub(super) rebuild: LuaScript,
    pub(super) page: LuaScript,
    pub(super) set_route: LuaScript,
    pub(super) drop_route: LuaScript,
    pub(super) push_offline: LuaScript,
    pub(super) take_offline: LuaScript,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            fill: LuaScript::new(FILL),
            append: LuaScript::new(APPEND),
            rebuild: LuaScript::new(REBUILD),
            page: LuaScript::new(PAGE),
            set_route: LuaScript::new(SET_ROUTE),
            drop_route: LuaScript::new(DROP_ROUTE),
            push_offline: LuaScript::new(PUSH_OFFLINE),
            take_offline: LuaScript::new(TAKE_OFFLINE),
        }
    }
}
