%% @private
%% @doc What channels of terms and channels of bytes have in common on the Erlang side.
-module(beamloop_channel).

-export([new/2, wait_for_room/2, is_timeout/1]).
-export([take/2, wait/3, claim/1, recv/3, try_recv/2]).
-export([subscribe/3]).
-export([pieces/1, own/1]).

%% An iovec in more pieces than this is only passed on in pieces if they are large.
-define(FEW_PIECES, 8).
-define(MANY_PIECES, 1024).
%% What a large piece is: small ones are copied in one go.
-define(LARGE_PIECE, 4096).

-define(IS_TIMEOUT(T), (T =:= infinity orelse
                        (is_integer(T) andalso T >= 0 andalso T =< 16#ffffffff))).

-type kind() :: beamloop_nif:kind().

%% --- making ---------------------------------------------------------------------------------

%% @doc Of checked options; an unknown or bad one is `badarg'.
-spec new(map(), kind()) -> {ok, reference()} | {error, noproc | system_limit}.
new(Options, Kind) when is_map(Options) ->
    Unknown = maps:without(known(Kind), Options),
    map_size(Unknown) =:= 0 orelse error(badarg, [Options]),
    beamloop_nif:nif_channel_new(limits(Options), owner(Options), binaries(Options, Kind), Kind);
new(Options, _Kind) ->
    error(badarg, [Options]).

known(bytes) -> [max_size, max_messages, high_watermark, low_watermark, owner];
known(terms) -> [binaries | known(bytes)].

limits(Options) ->
    MaxSize = maps:get(max_size, Options, infinity),
    MaxMessages = maps:get(max_messages, Options, infinity),
    {High, Low} = watermarks(Options),
    %% Atoms are greater than numbers.
    (Low =:= infinity orelse (Low < High andalso Low < MaxSize)) orelse error(badarg, [Options]),
    {MaxSize, MaxMessages, High, Low}.

watermarks(#{low_watermark := Low} = Options) when is_integer(Low), Low >= 0 ->
    {maps:get(high_watermark, Options, infinity), Low};
watermarks(#{low_watermark := _} = Options) ->
    error(badarg, [Options]);
watermarks(#{high_watermark := High}) when is_integer(High) ->
    {High, High div 2};
watermarks(#{high_watermark := infinity}) ->
    {infinity, infinity};
watermarks(#{high_watermark := _} = Options) ->
    error(badarg, [Options]);
watermarks(#{}) ->
    {infinity, infinity}.

%% `none' stands for no owner inside only.
owner(#{owner := none} = Options) -> error(badarg, [Options]);
owner(#{owner := Owner}) -> Owner;
owner(#{}) -> none.

binaries(_, bytes) -> bytes;
binaries(#{binaries := Type}, terms) -> Type;
binaries(#{}, terms) -> application:get_env(beamloop, binaries, bytes).

%% --- sending --------------------------------------------------------------------------------

-spec is_timeout(term()) -> boolean().
is_timeout(Timeout) -> ?IS_TIMEOUT(Timeout).

%% @doc Sends by a function that takes the reference of its answer, and waits for that.  The reference is
%% made here so that the receive looks only at messages that came after it.
-spec wait_for_room(fun((reference()) -> Result | {wait, reference()}), timeout()) ->
          Result | {error, timeout}.
wait_for_room(Send, Timeout) ->
    Ref = make_ref(),
    case Send(Ref) of
        {wait, Sender} ->
            receive
                {Ref, Result} -> Result
            after Timeout ->
                case beamloop_nif:nif_channel_send_cancel(Sender) of
                    true -> {error, timeout};
                    false -> receive {Ref, Result} -> Result end
                end
            end;
        Result ->
            Result
    end.

%% @doc Passing on pieces costs the NIF something for each; it stays short if there are few or they are
%% large.
-spec pieces([binary()]) -> [binary()].
pieces(Iovec) ->
    Count = length(Iovec),
    case Count =< ?FEW_PIECES orelse
         (Count =< ?MANY_PIECES andalso iolist_size(Iovec) div Count >= ?LARGE_PIECE) of
        true -> [own(Piece) || Piece <- Iovec];
        false -> [iolist_to_binary(Iovec)]
    end.

%% @doc A small part of a large binary must not keep the whole of it.
-spec own(binary()) -> binary().
own(Piece) ->
    case binary:referenced_byte_size(Piece) > 2 * byte_size(Piece) of
        %% Unlike binary:copy/1 this yields within one binary.
        true -> iolist_to_binary([Piece, <<>>]);
        false -> Piece
    end.

%% --- receiving: as beamloop_nif, with what is encoded decoded ----------------------------------

-type received() :: {ok, term()} | {error, closed | bad_message}.

-spec take(reference(), kind()) -> received() | empty.
take(Channel, Kind) ->
    decode(beamloop_nif:nif_channel_take(Channel, Kind)).

-spec wait(reference(), kind(), reference()) ->
          received() | {wait, reference()} | {error, system_limit}.
wait(Channel, Kind, Ref) ->
    decode(beamloop_nif:nif_channel_recv_wait(Channel, Kind, Ref)).

-spec claim(reference()) -> received().
claim(Receiver) ->
    decode(beamloop_nif:nif_channel_recv_claim(Receiver)).

decode({encoded, Binary}) ->
    try {ok, binary_to_term(Binary)}
    catch error:badarg -> {error, bad_message}
    end;
decode(Other) ->
    Other.

-spec try_recv(reference(), kind()) -> received() | {error, empty}.
try_recv(Channel, Kind) ->
    case take(Channel, Kind) of
        empty -> {error, empty};
        Result -> Result
    end.

%% @doc The next message; waits for it for `Timeout' milliseconds.
-spec recv(reference(), kind(), timeout()) -> received() | {error, timeout | system_limit}.
recv(Channel, Kind, Timeout) when ?IS_TIMEOUT(Timeout) ->
    case take(Channel, Kind) of
        empty when Timeout =:= 0 -> {error, timeout};
        empty -> recv_and_wait(Channel, Kind, Timeout);
        Result -> Result
    end;
recv(Channel, _Kind, Timeout) ->
    error(badarg, [Channel, Timeout]).

%% As for wait_for_room.
recv_and_wait(Channel, Kind, Timeout) ->
    Ref = make_ref(),
    case wait(Channel, Kind, Ref) of
        {wait, Receiver} ->
            receive
                {Ref, handed} -> claim(Receiver)
            after Timeout ->
                case beamloop_nif:nif_channel_recv_cancel(Receiver) of
                    true -> {error, timeout};
                    false -> receive {Ref, handed} -> claim(Receiver) end
                end
            end;
        Result ->
            Result
    end.

%% @doc Checks the options of a subscription and sets it.
-spec subscribe(reference(), kind(), map()) -> ok | {error, system_limit}.
subscribe(Channel, Kind, Options) when is_map(Options) ->
    Active = maps:get(active, Options, true),
    case maps:size(maps:remove(active, Options)) =:= 0 andalso is_active(Active) andalso
         beamloop_subscription:set(Channel, Kind, Active) of
        false -> error(badarg, [Channel, Options]);
        Result -> Result
    end;
subscribe(Channel, _Kind, Options) ->
    error(badarg, [Channel, Options]).

is_active(N) when is_integer(N) -> N >= -32768 andalso N =< 32767;
is_active(Active) -> is_boolean(Active) orelse Active =:= once.
