import Base
import EventLog
import Foundation
import Testing

extension HeavyTests {
    @Suite struct ErasureTests {
        private static let workspace = """
            kind: Topic
            name: customers
            personal:
              subject: data.customer
              fields: [data.email, data.phones.number]
            schema:
              type: object
              required: [customer, email]
              properties: {customer: {type: string}, email: {type: string, pattern: "@"}, spent: {type: number}}
            ---
            kind: FeatureView
            name: spending
            topic: customers
            key: data.customer
            filter: has(data.email)
            aggregates:
              - {name: total, function: sum, of: data.spent, window: 24h}
            ---
            kind: Question
            name: returns
            topic: customers
            id: data.customer + string(data.spent)
            askAt: timestamp(data.at)
            features:
              - {name: total, view: spending, key: data.customer}
            """

        private static func customer(_ id: Int, _ name: String, _ email: String, minute: Int) -> String {
            let time = Instant(milliseconds: 1_700_000_000_000 + Int64(minute) * 60_000)
            let asked = Instant(milliseconds: time.milliseconds + 30_000)
            return
                #"{"specversion":"1.0","id":"\#(id)","source":"shop","type":"bought","time":"\#(time)","data":{"customer":"\#(name)","email":"\#(email)","spent":\#(id),"at":"\#(asked)","phones":[{"number":"+49-\#(name)-\#(id)"}]}}"#
        }

        /// Every file under a directory that holds the text, uncompressed.
        private static func files(_ directory: String, holding text: String) throws -> [String] {
            let names = FileManager.default.enumerator(atPath: directory)?.compactMap { $0 as? String } ?? []
            return names.filter { name in
                FileManager.default.contents(atPath: directory + "/" + name)?.range(of: Data(text.utf8)) != nil
            }
        }

        /// Published, sealed, read, erased; then the chain holds, the replay is exact, and neither a restart nor an old
        /// copy of the keys brings anything back.
        @Test(.timeLimit(.minutes(2))) func aPersonIsErasedAndEverythingElseStays() async throws {
            let scratch = try ScratchDirectory()
            let (data, workspace, keys) = (scratch.path + "/data", scratch.path + "/workspace", scratch.path + "/keys")
            try FileManager.default.createDirectory(atPath: workspace, withIntermediateDirectories: true)
            try Data(Self.workspace.utf8).write(to: URL(filePath: workspace + "/w.yaml"))
            func start() throws -> FlightsNode {
                try FlightsNode(data: data, connector: nil, exit: false, workspace: workspace, keys: keys)
            }
            var node = try start()
            var address = try node.address()
            func post(_ events: [String], topic: String = "customers") async throws -> HTTPAnswer {
                try await http(
                    "POST", "\(address)/v1/events?topic=\(topic)",
                    headers: ["Content-Type": "application/cloudevents-batch+json"],
                    body: [UInt8]("[\(events.joined(separator: ","))]".utf8))
            }
            func read(_ topic: String) async throws -> [JSON] {
                try await http("GET", "\(address)/v1/topics/\(topic)/events?limit=100").json["events"]?.array ?? []
            }
            let events = (1...6).map { number in
                Self.customer(number, number % 2 == 0 ? "bob" : "alice", "mail\(number)@example.org", minute: number)
            }
            #expect(try await post(events).status == 200)
            // Refused with what it said, and that is personal as well; nobody's fields cannot be taken.
            let bad = try await post([Self.customer(7, "alice", "no-mail-at-all", minute: 7)])
            #expect(bad.json["error"]?["code"] == "schema-violation")
            let forged = try await post([
                Self.customer(8, "alice", "a@b", minute: 8).replacingOccurrences(
                    of: #""specversion""#, with: #""keyid":"00","specversion""#)
            ])
            #expect(forged.status == 403 && forged.json["error"]?["code"] == "reserved-attribute")
            let nobody = try await post([
                Self.customer(9, "", "nobody@b", minute: 8), Self.customer(10, "carol", "c@b", minute: 9),
            ])
            #expect(nobody.status == 207 && nobody.json["events"]?.array?[0]["code"] == "no-subject")
            func emails() async throws -> [JSON?] { try await read("customers").map { $0["data"]?["email"] } }
            #expect(try await emails() == ((1...6).map { .string("mail\($0)@example.org") } + ["c@b"]))
            #expect(
                try await read("headrace.dead-letters").contains {
                    $0["data"]?["raw"]?.string?.contains("no-mail") == true
                })

            var replay = JSON.null
            for _ in 0..<100 where replay["verdict"] != "EXACT" || (replay["eventsCompared"]?.int ?? 0) < 6 {
                replay = try await http("POST", address + "/v1/replay", body: []).json
                try await Task.sleep(for: .milliseconds(50))
            }
            #expect(replay["verdict"] == "EXACT" && replay["eventsCompared"]?.int ?? 0 >= 6, "\(replay)")
            let asked = try await read("questions.asked").map { $0["data"]?.text }

            let copy = scratch.path + "/old-keys"
            try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: true)
            try FileManager.default.copyItem(atPath: keys + "/subject.keys", toPath: copy + "/subject.keys")
            let erased = try run(headrace, ["erase", "alice", "--data", data, "--json"])
            #expect(erased.status == 0, "\(erased.errors)")
            #expect(try run(headrace, ["erase", "alice", "--data", data]).status == 3)
            #expect(try run(headrace, ["erase", "dave", "--data", data]).status == 3)

            for round in 0..<3 {
                let found = try await read("customers")
                #expect(found.count == 7)
                for event in found {
                    let isAlice = event["data"]?["customer"] == "alice"
                    let values = [event["data"]?["email"], event["data"]?["phones"]?.array?.first?["number"]]
                    #expect(values.allSatisfy { ($0?["$erased"]?["at"] != nil) == isAlice }, "round \(round): \(event)")
                    #expect(event["data"]?["spent"]?.int == event["id"]?.string.flatMap { Int64($0) })
                }
                #expect(
                    !(try await read("headrace.dead-letters").contains { $0.text.contains("no-mail") }),
                    "round \(round)")
                let marks = try await read("headrace.erasures").map { $0["type"]?.string ?? "" }
                #expect(marks.count { $0 == "subject.erased" } == 1 && marks.first == "keys.opened", "\(marks)")
                #expect(try await read("questions.asked").map { $0["data"]?.text } == asked)
                let verdict = try await http("POST", address + "/v1/replay", body: []).json["verdict"]
                let chain = try run(headrace, ["log", "verify", "--data", data])
                #expect(verdict == "EXACT" && chain.output.hasPrefix("INTACT"), "round \(round): \(chain.output)")
                for text in ["mail1@example.org", "mail2@example.org", "no-mail-at-all", "+49-alice", "c@b"] {
                    #expect(try Self.files(data, holding: text).isEmpty, "round \(round): \(text)")
                }
                guard round < 2 else { break }
                // Killed; the second time it finds the keys as they were before the erasure.
                node.killNow()
                if round == 1 {
                    try FileManager.default.removeItem(atPath: keys + "/subject.keys")
                    try FileManager.default.copyItem(atPath: copy + "/subject.keys", toPath: keys + "/subject.keys")
                }
                node = try start()
                address = try node.address()
            }
            // She comes back, under a new key.
            #expect(try await post([Self.customer(11, "alice", "new@example.org", minute: 20)]).status == 200)
            let after = try await emails()
            #expect(after.last == .string("new@example.org") && after.first??["$erased"] != nil)
            node.stop()
            // What a feature would read of a person is refused where it is written.
            let feature = Self.workspace.replacingOccurrences(of: "of: data.spent", with: "of: data.email.size()")
            try Data(feature.utf8).write(to: URL(filePath: workspace + "/w.yaml"))
            let refused = try run(headrace, ["apply", workspace, "--data", data])
            #expect(refused.status == 2 && refused.errors.contains("[personal-field]"), "\(refused.errors)")
            // Once events are there, nobody takes the declaration back.
            let bare = Self.workspace.replacingOccurrences(of: ", data.phones.number", with: "")
            try Data(bare.utf8).write(to: URL(filePath: workspace + "/w.yaml"))
            let narrowed = try run(headrace, ["apply", workspace, "--data", data])
            #expect(narrowed.status == 2 && narrowed.errors.contains("[in-force]"), "\(narrowed.errors)")
            // Her second key is erased in an older copy that never had her first or the third one made since.
            let newer = scratch.path + "/newer-keys"
            try FileManager.default.moveItem(atPath: keys, toPath: newer)
            let missing = try run(headrace, ["tail", "customers", "--no-follow", "--data", data])
            #expect(missing.status == 1 && missing.errors.contains("[keys-missing]"), "\(missing.errors)")
            try Self.makePrivate(keys)
            try FileManager.default.copyItem(atPath: copy + "/subject.keys", toPath: keys + "/subject.keys")
            let stray = try run(
                headrace,
                [
                    "publish", "customers", "--id", "12", "--data", data, "--value",
                    #"{"customer":"alice","email":"stray@example.org","spent":12,"at":"2023-11-14T23:00:00Z"}"#,
                ])
            #expect(stray.status == 0, "\(stray.errors)")
            #expect(try run(headrace, ["erase", "alice", "--data", data]).status == 0)
            try FileManager.default.removeItem(atPath: keys)
            try FileManager.default.moveItem(atPath: newer, toPath: keys)
            let last = try run(headrace, ["tail", "customers", "--no-follow", "--json", "--data", data]).output
            #expect(last.contains("mail2@example.org"))
            #expect(!last.contains("new@example.org") && !last.contains("stray@example.org"), "\(last)")
            // Keys of another log are not mixed with these, nor any that others may read.
            func refusal(_ arguments: [String]) throws -> String {
                let answer = try run(headrace, arguments)
                #expect(answer.status != 0, "\(arguments)")
                return answer.errors
            }
            let strange = scratch.path + "/strange"
            let begun = ["start", "--data", strange, "--workspace", workspace, "--port", "0", "--exit"]
            #expect(try run(headrace, begun).status == 0)
            let foreign = ["start", "--data", data, "--port", "0", "--keys", strange + "/keys", "--exit"]
            #expect(try refusal(foreign).contains("[other-keys]"))
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: keys)
            #expect(try refusal(["topics", "--data", data]).contains("[open-keys]"))
            try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: keys)
            try theKeysBelongToTheLog(scratch, data, keys)
        }

        private static func makePrivate(_ directory: String) throws {
            try FileManager.default.createDirectory(
                atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        }

        /// A restored log asks for its keys, a damaged note of their place changes nothing, and a directory that is moved or
        /// copied takes those inside it along.
        private func theKeysBelongToTheLog(_ scratch: ScratchDirectory, _ data: String, _ keys: String) throws {
            let (backup, restored) = (scratch.path + "/backup", scratch.path + "/restored")
            #expect(try run(headrace, ["log", "backup", backup, "--data", data]).status == 0)
            #expect(try run(headrace, ["log", "restore", backup, "--data", restored]).status == 0)
            func tail(_ data: String) throws -> (status: Int32, output: String, errors: String) {
                let answer = try run(headrace, ["tail", "customers", "--no-follow", "--json", "--data", data])
                return (answer.status, answer.output, answer.errors)
            }
            #expect(try tail(restored).errors.contains("[keys-missing]"))
            try Data().write(to: URL(filePath: data + "/keys.json"))
            #expect(try tail(data).errors.contains("[keys-missing]"))
            // With the keys beside it, the restored log is whole, and stays so where it is moved.
            try Self.makePrivate(restored + "/keys")
            try FileManager.default.copyItem(atPath: keys + "/subject.keys", toPath: restored + "/keys/subject.keys")
            #expect(try tail(restored).output.contains("mail2@example.org"))
            let moved = scratch.path + "/moved"
            try FileManager.default.moveItem(atPath: restored, toPath: moved)
            #expect(try tail(moved).output.contains("mail2@example.org"))
            let started = try run(headrace, ["start", "--data", data, "--port", "0", "--keys", keys, "--exit"])
            #expect(started.status == 0, "\(started.errors)")
            #expect(try tail(data).output.contains("mail2@example.org"))
            // Given up for good: what they sealed stays sealed.
            try FileManager.default.removeItem(atPath: moved + "/keys")
            let anew = try run(headrace, ["start", "--data", moved, "--port", "0", "--new-keys", "--exit"])
            #expect(anew.status == 0, "\(anew.errors)")
            let left = try tail(moved)
            #expect(left.status == 0 && left.output.contains("$sealed") && !left.output.contains("mail2@example.org"))
        }
    }
}
