-- Posts one event a request, each with an id of its own; for wrk. Prints one figure a line.
local threads = 0

function setup(thread)
    thread:set("number", threads)
    threads = threads + 1
end

local count = 0

function request()
    count = count + 1
    local id = number .. "-" .. count
    local body = '{"specversion":"1.0","id":"' .. id .. '","source":"bench","type":"flight.departed",'
        .. '"time":"2014-02-01T12:00:00Z","data":{"id":"' .. id
        .. '","carrier":"UA","origin":"JFK","dest":"LAX","dep_delay":12,"tailnum":"N12345"}}'
    return wrk.format("POST", "/v1/events?topic=flights.departed",
        { ["Content-Type"] = "application/cloudevents+json" }, body)
end

local refused = 0

function response(status)
    if status >= 300 then refused = refused + 1 end
end

function done(summary, latency)
    local errors = summary.errors
    if errors.status + errors.connect + errors.read + errors.write + errors.timeout > 0 then
        io.stderr:write("some requests failed\n")
        os.exit(1)
    end
    io.write(string.format('{"name":"log.append.http","value":%.1f,"unit":"events/s"}\n',
        summary.requests / (summary.duration / 1e6)))
    io.write(string.format('{"name":"log.append.http.p50","value":%.3f,"unit":"ms"}\n', latency:percentile(50) / 1e3))
    io.write(string.format('{"name":"log.append.http.p99","value":%.3f,"unit":"ms"}\n', latency:percentile(99) / 1e3))
end
