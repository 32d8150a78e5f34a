import Base
import EventLog
import Foundation
import Testing

@Suite(.serialized) struct HTTPTests {
    /// A node with the flights definitions and nothing else, for one test.
    private func withNode(_ body: (String, FlightsNode) async throws -> Void) async throws {
        let scratch = try ScratchDirectory()
        let node = try FlightsNode(data: scratch.path, connector: nil, exit: false)
        defer { node.stop() }
        try await body(try node.address(), node)
    }

    private static func departed(_ id: String, _ delay: String = "12", _ time: String = "2013-06-01T12:00:00Z")
        -> String
    {
        #"{"specversion":"1.0","id":"\#(id)","source":"test","type":"flight.departed","time":"\#(time)","partitionkey":"\#(id)","data":{"id":"\#(id)","carrier":"UA","tailnum":"N1","origin":"JFK","dest":"LAX","dep_delay":\#(delay)}}"#
    }

    @Test func badInputIsRefusedPreciselyAndNothingElseIsLost() async throws {
        try await withNode { address, _ in
            func post(
                _ topic: String, _ body: String, _ type: String = "application/cloudevents+json",
                headers: [String: String] = [:]
            ) async throws -> HTTPAnswer {
                try await http(
                    "POST", "\(address)/v1/events?topic=\(topic)",
                    headers: headers.merging(["Content-Type": type]) { $1 }, body: [UInt8](body.utf8))
            }
            let far = Instant(milliseconds: Instant.wallClock().milliseconds + 3_600_000).description
            let cases: [(String, String, Int, String)] = [
                ("flights.departed", "{not json", 400, "bad-json"),
                ("nowhere", Self.departed("x"), 404, "unknown-topic"),
                ("flights.departed", Self.departed("v", "\"late\""), 422, "schema-violation"),
                ("flights.departed", Self.departed("f", "1", far), 422, "future-timestamp"),
                ("predictions.served", Self.departed("r"), 403, "reserved-topic"),
                ("flights.departed", "{\"specversion\":\"1.0\"}", 400, "bad-event"),
                ("flights.departed", Self.departed(String(repeating: "i", count: 300)), 422, "bad-id"),
            ]
            // What an event says twice, it may say differently.
            let twice = [#""data_base64":"e30=""#, #""topic":"elsewhere""#].map { member in
                let event = Self.departed("z").replacingOccurrences(of: #""data":"#, with: member + #","data":"#)
                return ("flights.departed", event, 400, "bad-event")
            }
            for (topic, body, status, code) in cases + twice {
                let answer = try await post(topic, body)
                #expect(
                    answer.status == status && answer.json["error"]?["code"]?.string == code,
                    "\(answer.status) \(answer.text)")
            }
            let large = try await http(
                "POST", "\(address)/v1/events?topic=flights.departed", headers: ["Content-Type": "application/json"],
                body: Array(repeating: 0x20, count: Limits.requestBody + 1))
            #expect(large.status == 413)
            // A batch: what is good is taken, what is bad is named, twice the same id is one event.
            let batch = try await post(
                "flights.departed",
                "[\(Self.departed("a")),\(Self.departed("b", "null")),\(Self.departed("a")),\(Self.departed("c"))]",
                "application/cloudevents-batch+json")
            #expect(batch.status == 207)
            let outcomes = (batch.json["events"]?.array ?? []).map { $0["status"]?.string ?? "" }
            #expect(outcomes == ["accepted", "refused", "duplicate", "accepted"])
            #expect(batch.json["events"]?.array?[0]["position"] == batch.json["events"]?.array?[2]["position"])
            // Binary mode.
            let binary = try await post(
                "flights.departed", #"{"id":"d","carrier":"UA","origin":"JFK","dest":"LAX","dep_delay":3}"#,
                "application/json",
                headers: [
                    "ce-specversion": "1.0", "ce-id": "d", "ce-source": "test", "ce-type": "flight.departed",
                    "ce-time": "2013-06-01T12:30:00Z",
                ])
            #expect(binary.status == 200 && binary.json["events"]?.array?.first?["durability"] == "synced")
            // What was refused stands in the dead letters with its bytes and the reason.
            let dead = try await http("GET", "\(address)/v1/topics/headrace.dead-letters/events?limit=100")
            let codes = (dead.json["events"]?.array ?? []).compactMap { $0["data"]?["code"]?.string }
            #expect(
                codes.contains("schema-violation") && codes.contains("future-timestamp")
                    && codes.contains("unknown-topic"))
            let raws = (dead.json["events"]?.array ?? []).compactMap { $0["data"]?["raw"]?.string }
            #expect(raws.contains { $0.contains("\"late\"") })
            let stored = try await http("GET", "\(address)/v1/topics/flights.departed/events?limit=100")
            #expect(Set((stored.json["events"]?.array ?? []).compactMap { $0["id"]?.string }) == ["a", "c", "d"])
            // The fold goes on: the view has what was accepted.
            var features = JSON.null
            for _ in 0..<100 where features["features"]?["departures_3h"]?.int != 3 {
                features = try await http("GET", "\(address)/v1/features/origin_departures/JFK").json
                try await Task.sleep(for: .milliseconds(50))
            }
            #expect(
                features["features"]?["departures_3h"]?.int == 3
                    && features["features"]?["dep_delay_mean_3h"]?.double == 9)
            for (path, status) in [
                ("/v1/features/nope/JFK", 404), ("/v1/features/aircraft/none", 404), ("/v1/topics/nope/events", 404),
                ("/v1/topics/flights.departed/events?limit=0", 400), ("/v1/topics/flights.departed/events?from=x", 400),
                ("/health/live", 200), ("/health/ready", 200), ("/nowhere", 404),
            ] {
                #expect(try await http("GET", address + path).status == status, "\(path)")
            }
            for (method, path, status) in [
                ("PUT", "/v1/events", 405), ("GET", "/v1/events", 405), ("DELETE", "/v1/topics", 405),
                ("PATCH", "/nowhere", 404),
            ] {
                let answer = try await http(method, address + path, body: method == "GET" ? nil : [])
                let code = answer.json["error"]?["code"]
                #expect(answer.status == status && code == (status == 405 ? "method-not-allowed" : "not-found"))
            }
            for (from, reason) in [("99999", "ends at offset"), ("77:0", "has the partitions")] {
                let answer = try await http("GET", "\(address)/v1/topics/flights.departed/events?from=\(from)")
                #expect(answer.status == 400 && answer.text.contains(reason), "\(answer.text)")
            }
            // Forged progress is refused; an event behind the closed instant is late, live and in a replay.
            let forged = try await post(
                "flights.departed",
                Self.departed("g").replacingOccurrences(of: "flight.departed", with: "source.progress"))
            #expect(forged.status == 403 && forged.json["error"]?["code"]?.string == "reserved-type")
            try await Task.sleep(for: .milliseconds(300))
            #expect(
                try await post("flights.departed", Self.departed("late", "1", "2013-06-01T11:00:00Z")).status == 200)
            var late = 0
            for _ in 0..<100 where late == 0 {
                late =
                    (try await http("GET", address + "/v1/topics/headrace.late/events").json["events"]?.array ?? [])
                    .count
                try await Task.sleep(for: .milliseconds(50))
            }
            #expect(late == 1)
            // Relaxed where asked for by name, and said so.
            for (asked, said, status) in [("relaxed", "relaxed", 200), ("synced", "synced", 200), ("soon", nil, 400)] {
                let answer = try await post(
                    "flights.departed&durability=\(asked)",
                    Self.departed("durable-\(asked)", "9", "2013-06-01T12:20:00Z"))
                #expect(
                    answer.status == status && answer.json["events"]?.array?.first?["durability"]?.string == said,
                    "\(asked): \(answer.text)")
            }
            let replay = try await http("POST", address + "/v1/replay", body: [])
            #expect(replay.json["verdict"] == "EXACT", "\(replay.text)")
            let metrics = try await http("GET", address + "/metrics").text
            #expect(
                metrics.contains("headrace_topic_records{topic=\"flights.departed\"}")
                    && metrics.contains("# TYPE headrace_log_events_total counter"))
        }
    }

    /// What once stopped the fold for good: a flight scheduled twice, an event that several stages refuse, a bad topic name
    /// in a workspace. The node goes on, also after kill -9, and a replay is EXACT.
    @Test func oddInputDoesNotStopTheFold() async throws {
        let scratch = try ScratchDirectory()
        var node = try FlightsNode(data: scratch.path, connector: nil, exit: false)
        var address = try node.address()
        func post(_ topic: String, _ body: String) async throws -> Int {
            let headers = ["Content-Type": "application/cloudevents+json"]
            return try await http(
                "POST", "\(address)/v1/events?topic=\(topic)", headers: headers, body: [UInt8](body.utf8)
            ).status
        }
        func scheduled(_ event: String, _ time: String) -> String {
            #"{"specversion":"1.0","id":"\#(event)","source":"test","type":"flight.scheduled","time":"\#(time)","data":{"id":"twice","scheduled":"2013-06-02T12:00:00Z","carrier":"UA","origin":"JFK","dest":"LAX","distance":100}}"#
        }
        #expect(try await post("flights.scheduled", scheduled("s1", "2013-06-01T12:00:00Z")) == 200)
        #expect(try await post("flights.departed", Self.departed("d1", "5", "2013-06-02T11:30:00Z")) == 200)
        try await Task.sleep(for: .milliseconds(200))
        // Scheduled again after its question was asked, and too late to ask it once more.
        #expect(try await post("flights.scheduled", scheduled("s2", "2013-06-02T11:40:00Z")) == 200)
        #expect(try await post("flights.departed", Self.departed("d2", "5", "2013-06-02T12:30:00Z")) == 200)
        let workspace = try ScratchDirectory()
        try Data("kind: Topic\nname: \"bad name!\"\n".utf8).write(to: URL(filePath: workspace.path + "/t.yaml"))
        #expect(try run(headrace, ["apply", workspace.path, "--data", scratch.path]).status == 2)
        try Data("kind: Topic\nname: fine\n".utf8).write(to: URL(filePath: workspace.path + "/t.yaml"))
        #expect(try run(headrace, ["apply", workspace.path, "--data", scratch.path]).status == 0)
        let published = try run(headrace, ["publish", "fine", "--id", "x", "--value", "{}", "--data", scratch.path])
        #expect(published.status == 0, "\(published.errors)")
        // Late on one partition after the other, newest first: a rebuild must put them where the fold did.
        for (number, topic) in ["flights.scheduled", "flights.departed", "flights.scheduled", "flights.departed"]
            .enumerated()
        {
            let time = "2013-05-0\(9 - number)T12:00:00Z"
            let body =
                topic == "flights.departed"
                ? Self.departed("late\(number)", "5", time) : scheduled("late\(number)", time)
            #expect(try await post(topic, body) == 200)
            try await Task.sleep(for: .milliseconds(number == 1 ? 100 : 5))
        }
        var order: [[String]] = []
        for round in 0..<2 {
            var departures: Int64?
            for _ in 0..<100 where departures != 2 {
                departures = try await http("GET", address + "/v1/features/origin_departures/JFK").json["features"]?[
                    "departures_3h"]?.int
                try await Task.sleep(for: .milliseconds(50))
            }
            #expect(departures == 2, "round \(round): \(node.errors)")
            #expect(try await http("GET", address + "/health/ready").status == 200)
            let unfolded =
                try await http("GET", address + "/v1/topics/headrace.unfolded/events").json["events"]?.array ?? []
            #expect(unfolded.count == 1)
            let replay = try await http("POST", address + "/v1/replay", body: [])
            #expect(replay.json["verdict"] == "EXACT", "\(replay.text)")
            // The last of them is folded when its instant is closed.
            var late: [JSON] = []
            for _ in 0..<100 where late.count < 4 {
                late = try await http("GET", address + "/v1/topics/headrace.late/events").json["events"]?.array ?? []
                try await Task.sleep(for: .milliseconds(50))
            }
            order.append(late.compactMap { $0["data"]?["position"]?.string })
            #expect(order[0].count == 4 && order.allSatisfy { $0 == order[0] }, "\(order)")
            guard round == 0 else { break }
            node.killNow()
            // Nothing but the log is left.
            for name in try FileManager.default.contentsOfDirectory(atPath: scratch.path) where name.contains(".sqlite")
            {
                try FileManager.default.removeItem(atPath: scratch.path + "/" + name)
            }
            node = try FlightsNode(data: scratch.path, connector: nil, exit: false)
            address = try node.address()
        }
        node.stop()
        #expect(node.process.terminationStatus == 0)
    }

    /// Follows a topic, is cut off, and goes on from Last-Event-ID without gap or double.
    @Test func streamsResume() async throws {
        try await withNode { address, _ in
            func publish(_ range: Range<Int>) async throws {
                for number in range {
                    let body = "[\(Self.departed("s\(number)"))]"
                    let answer = try await http(
                        "POST", "\(address)/v1/events?topic=flights.departed",
                        headers: ["Content-Type": "application/cloudevents-batch+json"], body: [UInt8](body.utf8))
                    #expect(answer.status == 200)
                }
            }
            func follow(_ resume: String?) throws -> (ids: [String], last: String?) {
                var arguments = ["-sN", "--max-time", "2", "\(address)/v1/topics/flights.departed/stream"]
                if let resume { arguments += ["-H", "Last-Event-ID: \(resume)"] }
                let text = try run("/usr/bin/curl", arguments).output
                let ids = text.split(separator: "\n").filter { $0.hasPrefix("data: ") }.compactMap {
                    try? JSON(parsing: [UInt8]($0.dropFirst(6).utf8))["id"]?.string
                }
                return (ids, text.split(separator: "\n").last { $0.hasPrefix("id: ") }.map { String($0.dropFirst(4)) })
            }
            try await publish(0..<20)
            let before = try follow(nil)
            try await publish(20..<45)
            let after = try follow(before.last)
            #expect(Set(before.ids) == Set((0..<20).map { "s\($0)" }) && before.ids.count == 20)
            #expect(Set(after.ids) == Set((20..<45).map { "s\($0)" }) && after.ids.count == 25)
        }
    }

    /// The console in a real browser: it loads, draws and shows no error.
    @Test(.enabled(if: FileManager.default.fileExists(atPath: "/usr/bin/chromium"), "chromium is not installed"))
    func consoleRunsInABrowser() async throws {
        try await withNode { address, node in
            let body = "[\(Self.departed("c1"))]"
            _ = try await http(
                "POST", "\(address)/v1/events?topic=flights.departed",
                headers: ["Content-Type": "application/cloudevents-batch+json"], body: [UInt8](body.utf8))
            let page = try await http("GET", address + "/")
            #expect(page.status == 200 && page.text.contains("flights.departed"))
            let chart = try await http("GET", address + "/chart.js")
            #expect(chart.status == 200 && chart.body.count > 100_000)
            for theme in ["", "--blink-settings=preferredColorScheme=0"] {
                let result = try run(
                    "/usr/bin/chromium",
                    [
                        "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000",
                        "--user-data-dir=\(node.data)/chromium", "--enable-logging=stderr", "--v=0", theme,
                        "--dump-dom", address + "/",
                    ].filter { !$0.isEmpty })
                #expect(result.output.contains("data-loaded=\"yes\""), "\(result.errors.suffix(400))")
                #expect(result.output.contains("live, as of"))
                #expect(
                    !result.errors.contains("Uncaught") && !result.errors.contains("CONSOLE:")
                        || !result.errors.contains("Error"), "\(result.errors.suffix(800))")
            }
        }
    }
}
