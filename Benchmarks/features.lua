-- Asks for features of ENTITIES keys a request, FEATURES of them; for wrk. Prints figures a line each.
local entities = tonumber(os.getenv("ENTITIES") or "1")
local name = os.getenv("FIGURE") or "online.http"
local keys = {}
local airports = { "JFK", "LGA", "EWR" }
for index = 1, entities do keys[index] = '"' .. airports[(index - 1) % 3 + 1] .. '"' end
local features = os.getenv("FEATURES")
    or '"origin_departures:dep_delay_mean_1h","origin_departures:departures_1h","origin_departures:dep_delay_mean_3h","origin_departures:departures_3h","weather:temp"'
local body = '{"features":[' .. features .. '],"full_feature_names":true,"entities":{"origin":[' .. table.concat(keys, ",") .. "]}}"
local question = wrk.format("POST", "/get-online-features", { ["Content-Type"] = "application/json" }, body)

function request() return question end

function done(summary, latency)
    local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
    if bad > 0 then print("# " .. bad .. " requests failed") end
    print(string.format('{"name":"%s","value":%.0f,"unit":"requests/s"}', name, summary.requests / summary.duration * 1e6))
    print(string.format('{"name":"%s.p99","value":%.3f,"unit":"ms"}', name, latency:percentile(99) / 1000))
end
