import Foundation
import Testing

/// House rules that a machine can check. Limits are ratchets: they may only go down.
@Suite struct TidyTests {
    /// What each target may import of ours and of others (docs/architecture.md).
    static let allowed: [String: Set<String>] = {
        let below: Set<String> = ["Foundation", "Dispatch", "Synchronization"]
        let stream: Set<String> = ["Base", "RecordFormat", "EventLog", "Catalog", "Streams", "Learning", "GRDB"]
        let capabilities: Set<String> = ["Features", "Datasets", "Models", "Supervision", "Lineage"]
        var table: [String: Set<String>] = [
            "Base": ["Crypto", "CRE2"], "RecordFormat": ["Base", "CPlatform", "CLZ4"],
            "EventLog": ["Base", "CPlatform", "RecordFormat"],
            "KafkaLog": ["Base", "RecordFormat", "EventLog", "CRdKafka"],
            "Simulation": ["Base", "RecordFormat", "EventLog"],
            "headrace-simulate": ["Base", "Simulation", "ArgumentParser"],
            "Catalog": ["Base", "Yams"], "Privacy": ["Base", "CPlatform", "EventLog", "Catalog", "Crypto"],
            "Gateway": ["Base", "RecordFormat", "EventLog", "Catalog", "Privacy"],
            "Streams": ["Base", "RecordFormat", "EventLog", "Catalog", "Learning", "GRDB"], "Learning": ["Base"],
            "Training": stream.union(["Datasets", "Models", "CXGBoost"]),
            "Connectors": ["Base", "RecordFormat", "EventLog", "Catalog", "Gateway"],
            "HTTP": [
                "Base", "Hummingbird", "HummingbirdCore", "HTTPTypes", "Logging", "NIOCore", "NIOHTTP1", "NIOHTTPTypes",
                "NIOPosix",
            ],
            "API": ["Base", "RecordFormat", "HTTP", "EventLog", "Catalog", "Gateway", "Features"],
            "Application": [
                "Base", "RecordFormat", "EventLog", "Catalog", "Gateway", "HTTP", "API", "Node", "Streams",
                "ArgumentParser",
            ],
            "headrace": ["Headrace"],
        ]
        for name in capabilities { table[name] = stream }
        table["Node"] = stream.union(capabilities).union([
            "CPlatform", "Gateway", "Training", "Connectors", "HTTP", "API", "KafkaLog", "Privacy",
        ])
        return table.mapValues { $0.union(below) }
    }()

    /// Lines of a file, and of a function; the second limit has the few that are still above 70.
    static let fileLimit = 480
    static let functionLimit = 70

    static func sources() throws -> [(target: String, path: String, text: String)] {
        let root = projectDirectory + "/Sources"
        let names = try #require(FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String })
        return try names.filter { $0.hasSuffix(".swift") }.sorted().map { name in
            (String(name.prefix { $0 != "/" }), name, try String(contentsOfFile: root + "/" + name, encoding: .utf8))
        }
    }

    @Test func importsFollowTheDirection() throws {
        for (target, path, text) in try Self.sources() {
            let allowed = try #require(Self.allowed[target], "the target \(target) is not in the table")
            for line in text.split(separator: "\n") {
                let words = line.split(separator: " ").filter { !$0.hasPrefix("@") && $0 != "package" }
                guard words.first == "import", words.count == 2 else { continue }
                #expect(allowed.contains(String(words[1])), "\(path) imports \(words[1])")
            }
        }
    }

    /// The reference of the Swift API is made without a warning, and everything public has a comment.
    @Test func theReferenceIsWhole() throws {
        let scratch = try ScratchDirectory()
        let made = try run("/bin/sh", [projectDirectory + "/docs/build-api", scratch.path + "/api"])
        #expect(made.status == 0, "\(made.output) \(made.errors)")
        let page = scratch.path + "/api/documentation/streams/streambuilder/index.html"
        #expect(FileManager.default.fileExists(atPath: page))
    }

    @Test func filesAndFunctionsStayShort() throws {
        for (_, path, text) in try Self.sources() {
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            #expect(lines.count <= Self.fileLimit, "\(path) has \(lines.count) lines")
            var start: (line: Int, indent: Int)?
            for (number, line) in lines.enumerated() {
                let indent = line.prefix { $0 == " " }.count
                let trimmed = line.drop { $0 == " " }
                if start == nil, trimmed.contains("func ") || trimmed.hasPrefix("init(") || trimmed.contains(" init("),
                    line.hasSuffix("{")
                {
                    start = (number, indent)
                } else if let begun = start, indent == begun.indent, trimmed.hasPrefix("}") {
                    #expect(
                        number - begun.line <= Self.functionLimit,
                        "\(path):\(begun.line + 1) has \(number - begun.line) lines")
                    start = nil
                }
            }
        }
    }

    @Test func bannedCallsStayOut() throws {
        let everywhere = ["try!", "fatalError(", " as!", "NSLog(", "Thread.sleep(forTimeInterval: 0)"]
        // Folds get no clock and no randomness.
        let folds: Set<String> = ["Streams", "Features", "Datasets", "Models", "Supervision", "Lineage", "Learning"]
        let inFolds = [
            "Date()", "wallClock()", "SystemRandomNumberGenerator", ".randomElement()", ".shuffled()", "UUID()",
            "Hasher()", "hashValue",
        ]
        for (target, path, text) in try Self.sources() {
            for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
                let code = line.drop { $0 == " " }
                guard !code.hasPrefix("//") else { continue }
                for call in everywhere + (folds.contains(target) ? inFolds : []) {
                    #expect(!code.contains(call), "\(path):\(number + 1) uses \(call)")
                }
                if code.contains("@unchecked Sendable") {
                    let before = text.split(separator: "\n", omittingEmptySubsequences: false)[
                        max(0, number - 4)...number
                    ].joined()
                    #expect(
                        before.contains("lock") || before.contains("condition"), "\(path):\(number + 1) names no lock")
                }
            }
        }
    }

    @Test func theReadmeIsShortAndNamesWhatIsThere() throws {
        let readme = try String(contentsOfFile: projectDirectory + "/README.md", encoding: .utf8)
        #expect(readme.split(separator: "\n", omittingEmptySubsequences: false).count <= 121)
        for name in ["./start", "./test", "docs/architecture.md", "CONTRIBUTING.md"] { #expect(readme.contains(name)) }
        let architecture = try String(contentsOfFile: projectDirectory + "/docs/architecture.md", encoding: .utf8)
        for folder in try FileManager.default.contentsOfDirectory(atPath: projectDirectory + "/Sources") {
            #expect(architecture.contains("`\(folder)`"), "\(folder)")
        }
    }
}
