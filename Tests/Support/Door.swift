import Foundation

/// A program that stands in front of a broker on a free port and says `ready PORT`, stopped by its process id.
final class Door: Sendable {
    let port: Int
    private let identifier: Int32

    /// - Parameters:
    ///   - arguments: of the tests' Python.
    ///   - notes: a file for what it says.
    init(_ arguments: [String], notes: String) throws {
        guard let python else { throw TestSupportError.noBroker }
        _ = FileManager.default.createFile(atPath: notes, contents: nil)
        let process = Process()
        process.executableURL = URL(filePath: python)
        process.arguments = arguments
        process.standardOutput = try FileHandle(forWritingTo: URL(filePath: notes))
        process.standardError = FileHandle.nullDevice
        try process.run()
        identifier = process.processIdentifier
        for _ in 0..<400 {
            let words = (try? String(contentsOfFile: notes, encoding: .utf8))?.split(whereSeparator: \.isWhitespace)
            if let words, words.count == 2, words[0] == "ready", let port = Int(words[1]) {
                self.port = port
                return
            }
            Thread.sleep(forTimeInterval: 0.025)
        }
        Foundation.kill(identifier, SIGTERM)
        throw TestSupportError.noDoor("it did not say its port")
    }

    deinit { Foundation.kill(identifier, SIGTERM) }
}
