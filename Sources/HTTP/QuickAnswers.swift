import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Answers requests where they are read, on the thread of the connection's event loop: no task, no queue and no other thread
/// takes part. What is not answered here, because its path is another, its body is large or the answer is not at hand, goes
/// on to the routes. One a connection; it lives on the connection's event loop.
final class QuickAnswers: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart
    /// nil where the routes must answer.
    typealias Answer = @Sendable (WebRequest) -> WebResponse?

    /// Bytes of a body that is answered here.
    static let bodyLimit = 64 << 10

    /// By method and path.
    private let answers: [String: Answer]
    /// Requests that the routes have not answered yet: answers go out in the order of their requests.
    private var underWay = 0
    private var waiting: (head: HTTPRequest, answer: Answer)?
    private var body = ByteBuffer()

    init(_ answers: [String: Answer]) { self.answers = answers }

    static func name(_ method: String, _ path: String) -> String { "\(method) \(path)" }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            if underWay == 0, let answer = answer(to: head) {
                waiting = (head, answer)
                body.clear()
            } else {
                underWay += 1
                context.fireChannelRead(data)
            }
        case .body(let part):
            guard waiting != nil else { return context.fireChannelRead(data) }
            if body.readableBytes == 0 { body = part } else { body.writeImmutableBuffer(part) }
            if body.readableBytes > Self.bodyLimit { passOn(context) }
        case .end:
            guard let (head, answer) = waiting else { return context.fireChannelRead(data) }
            let request = WebRequest(head, Array(body.readableBytesView))
            guard let given = answer(request), case .bytes(let bytes) = given.body else {
                passOn(context)
                return context.fireChannelRead(data)
            }
            waiting = nil
            write(given, bytes, context)
        }
    }

    /// One that asks for something beside the answer (its connection's end, a word before its body) is none of ours.
    private func answer(to head: HTTPRequest) -> Answer? {
        guard let path = head.path, head.headerFields[.connection] == nil || isKept(head),
            head.headerFields[.expect] == nil
        else { return nil }
        if let length = head.headerFields[.contentLength].flatMap({ Int($0) }), length > Self.bodyLimit { return nil }
        return answers[Self.name(head.method.rawValue, path)]
    }

    private func isKept(_ head: HTTPRequest) -> Bool {
        head.headerFields[.connection]?.lowercased() == "keep-alive"
    }

    private func passOn(_ context: ChannelHandlerContext) {
        guard let (head, _) = waiting else { return }
        waiting = nil
        underWay += 1
        context.fireChannelRead(wrapInboundOut(.head(head)))
        if body.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(.body(body))) }
        body = ByteBuffer()
    }

    private func write(_ given: WebResponse, _ bytes: [UInt8], _ context: ChannelHandlerContext) {
        var fields = HTTPFields()
        fields[.contentType] = given.contentType
        fields[.contentLength] = "\(bytes.count)"
        for (name, value) in given.headers { if let field = HTTPField.Name(name) { fields[field] = value } }
        let head = HTTPResponse(status: .init(code: given.status), headerFields: fields)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(context.channel.allocator.buffer(bytes: bytes))), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) { underWay = max(0, underWay - 1) }
        context.write(data, promise: promise)
    }
}
