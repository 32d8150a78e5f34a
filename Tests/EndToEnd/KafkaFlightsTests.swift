import Base
import EventLog
import Foundation
import KafkaLog
import RecordFormat
import Testing

extension HeavyTests {
    /// The flights loop on a real broker: the same report and verdicts as on the embedded log, also after a
    /// crash. Nodes are stopped and their state is put back: noida-db 0.2.3 hides committed records from readers that begin
    /// behind an aborted transaction, so a killed one's aborted transaction cannot be followed on it.
    @Suite(
        .serialized, .enabled(if: flightsDirectory != nil, "the flights data is not there"),
        .enabled(if: KafkaBroker.executable != nil, "needs the PyPI package noida-db in .cache/venv"))
    struct KafkaFlightsTests {
        private func cli(_ data: String, _ arguments: String...) throws -> (status: Int32, json: JSON, errors: String) {
            let answer = try run(
                headrace, arguments + ["--data", data, "--json"],
                environment: ["HEADRACE_FLIGHTS": flightsDirectory ?? ""])
            return (answer.status, (try? JSON(parsing: [UInt8](answer.output.utf8))) ?? .null, answer.errors)
        }

        /// Events of every derived topic, none twice.
        private func counts(_ log: any EventLog) throws -> [String: Int] {
            var result: [String: Int] = [:]
            for topic in [
                "flights.scheduled", "flights.departed", "questions.asked", "outcomes.observed", "predictions.served",
                "training.requested", "training.completed", "models.registered", "models.deployed", "models.artifacts",
                "monitors.performance", "monitors.drift", "retraining.triggered", "headrace.digests",
            ] {
                var ids: Set<String> = []
                for partition in 0..<2 {
                    try log.forEachEvent(TopicPartition(topic, partition)) { event in
                        // Derived ids name positions, which markers shift; what else they say must be there once.
                        #expect(ids.insert("\(partition) \(event.id)").inserted, "\(topic) \(event.id)")
                        return true
                    }
                }
                result[topic] = ids.count
            }
            return result
        }

        @Test func interruptedNodesOnKafkaEndExactAndLikeTheEmbeddedOnes() async throws {
            let days = try #require(FirstDays.shared, "the first 45 days could not be played")
            let broker = try KafkaBroker()
            let scratch = try ScratchDirectory()
            let state = scratch.path + "/state.sqlite"
            for (number, pause) in [2500, 2500, 2000].enumerated() {
                let node = try FlightsNode(
                    data: scratch.path, until: FirstDays.until, checkpoint: 0.3,
                    kafka: number == 0 ? broker.address : nil)
                _ = try node.address()
                try await Task.sleep(for: .milliseconds(pause))
                node.stop()
                if number == 0 { try FileManager.default.copyItem(atPath: state, toPath: state + ".old") }
            }
            // What a crash leaves, as far back as can be: the log has outputs that the state knows nothing of.
            for name in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: state + name) }
            try FileManager.default.moveItem(atPath: state + ".old", toPath: state)
            // From now on the directory itself says where its log is.
            let last = try FlightsNode(data: scratch.path, until: FirstDays.until)
            last.process.waitUntilExit()
            try #require(last.process.terminationStatus == 0, "\(last.errors)")

            let (embedded, kafka) = (
                try cli(days.data, "report", "flights"), try cli(scratch.path, "report", "flights")
            )
            #expect(
                embedded.json["months"] != nil || embedded.json["rows"] != nil || embedded.json.object?.isEmpty == false
            )
            for key in (embedded.json.object ?? [:]).keys.sorted()
            where !["seconds", "events", "peakMemoryBytes"].contains(key) {
                #expect(Self.withoutPositions(kafka.json[key]) == Self.withoutPositions(embedded.json[key]), "\(key)")
            }
            let replay = try cli(scratch.path, "replay")
            #expect(replay.status == 0 && replay.json["verdict"] == "EXACT", "\(replay.json.text) \(replay.errors)")
            let audits = try [days.data, scratch.path].map { try cli($0, "audit", "model", "flights-delay@1") }
            #expect(audits.allSatisfy { $0.status == 0 && $0.json["verdict"] == "EXACT" }, "\(audits)")
            // The positions of its inputs are another log's, the rows and so the model are the same.
            #expect(audits[0].json["modelDigest"] == audits[1].json["modelDigest"])

            var options = EmbeddedLog.Options()
            options.readOnly = true
            let expected = try counts(try EmbeddedLog.open(days.data + "/log", options: options))
            let log = try KafkaLog.open(broker.configuration, named: "test")
            defer { log.close() }
            for topic in expected.keys.sorted() { try log.declare(TopicLayout(name: topic, partitions: 1)) }
            let found = try counts(log)
            for (topic, count) in expected.sorted(by: { $0.key < $1.key }) {
                #expect(found[topic] == count, "\(topic)")
            }
        }

        /// Positions count markers on Kafka and not in the embedded log.
        private static func withoutPositions(_ value: JSON?) -> String {
            (value ?? .null).text.replacing(#/@[0-9]+"/#, with: "@\"").replacing(#/"asOf":"[^"]*"/#, with: "")
        }

        @Test func aNodeOnKafkaSaysSoAndItsDashboardKnowsItsMetrics() async throws {
            let broker = try KafkaBroker()
            let scratch = try ScratchDirectory()
            let node = try FlightsNode(
                data: scratch.path, until: "2013-01-02T00:00:00Z", exit: false, kafka: broker.address)
            defer { node.stop() }
            let address = try node.address()
            try await eventually { try await http("GET", address + "/v1/status").json["state"] == "settled" }
            func publish(_ id: String) async throws -> HTTPAnswer {
                let event = """
                    {"specversion":"1.0","id":"\(id)","source":"me","type":"flight.departed","time":"2014-02-01T12:00:00Z",
                    "data":{"id":"\(id)","carrier":"UA","origin":"JFK","dest":"LAX","dep_delay":12}}
                    """
                return try await http(
                    "POST", address + "/v1/events?topic=flights.departed",
                    headers: ["Content-Type": "application/cloudevents+json"], body: [UInt8](event.utf8))
            }
            let published = try await publish("one")
            #expect(published.status < 300 && published.text.contains("\"replicated\""), "\(published.text)")
            try await outage(broker, address) { try await publish($0) }
            // Client statistics come every five seconds.
            var text = ""
            for _ in 0..<100 where !text.contains("headrace_kafka_broker_rtt_seconds{") {
                text = try await http("GET", address + "/metrics").text
                try await Task.sleep(for: .milliseconds(100))
            }
            for name in ["lag", "queue_messages", "broker_rtt_seconds", "errors_total", "transactions_total"] {
                #expect(text.contains("headrace_kafka_\(name){"), "\(name)")
            }
            let status = try await http("GET", address + "/v1/status").json
            #expect(status["kafka"]?.string == broker.address && status["failures"] == [])
            let inspection = try await http("GET", address + "/v1/log").json
            #expect(inspection["drift"] == [] && (inspection["partitions"]?.array?.count ?? 0) > 20)
            #expect(try await http("POST", address + "/v1/log/verify").json["error"]?["code"] == "unsupported")
            let file = scratch.path + "/metrics"
            try Data(text.utf8).write(to: URL(filePath: file))
            let checked = try run(
                try #require(python), ["Tests/Contract/Python/check_deploy.py", "--root", projectDirectory, file])
            #expect(checked.status == 0, "\(checked.output)\(checked.errors)")
        }

        private func eventually(_ what: () async throws -> Bool) async throws {
            for _ in 0..<600 {
                if (try? await what()) == true { return }
                try await Task.sleep(for: .milliseconds(100))
            }
            Issue.record("it did not come to pass in a minute")
        }

        /// A node without its brokers says so, refuses at once, and goes on when they are back.
        private func outage(
            _ broker: KafkaBroker, _ address: String, _ publish: (String) async throws -> HTTPAnswer
        ) async throws {
            // This broker saves about once a second, and what it forgets the node rightly calls a log that shrank.
            try await Task.sleep(for: .seconds(3))
            broker.stop()
            try await eventually { try await http("GET", address + "/health/ready").status == 503 }
            let begun = Date()
            let refused = try await publish("two")
            #expect(refused.status == 503 && refused.text.contains("broker-unavailable"), "\(refused.text)")
            #expect(Date().timeIntervalSince(begun) < 5)
            #expect(try await http("GET", address + "/metrics").text.contains("headrace_kafka_up 0"))
            try broker.start()
            try await eventually { try await http("GET", address + "/health/ready").status == 200 }
            let again = try await publish("two")
            #expect(again.status < 300, "\(again.text)")
        }

        @Test func anotherClusterIsNotTakenForTheSame() throws {
            let scratch = try ScratchDirectory()
            let (first, second) = (try KafkaBroker(), try KafkaBroker())
            let play = try FlightsNode(data: scratch.path, until: "2013-01-01T00:00:00Z", kafka: first.address)
            play.process.waitUntilExit()
            try #require(play.process.terminationStatus == 0, "\(play.errors)")
            let before = FileManager.default.contents(atPath: scratch.path + "/log/cluster.json")
            let answer = try run(
                headrace,
                ["start", "--data", scratch.path, "--kafka", second.address, "--port", "0", "--exit"])
            #expect(answer.status == 2 && answer.errors.contains("other-log"), "\(answer.errors)")
            #expect(before != nil && FileManager.default.contents(atPath: scratch.path + "/log/cluster.json") == before)
        }

        @Test func aDirectoryKeepsItsLog() throws {
            let days = try #require(FirstDays.shared)
            let answer = try run(
                headrace, ["start", "--data", days.data, "--kafka", "127.0.0.1:1", "--port", "0", "--exit"])
            #expect(answer.status == 2 && answer.errors.contains("other-log"), "\(answer.errors)")
        }
    }
}
