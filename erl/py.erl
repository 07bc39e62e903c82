%% @doc Calling Python.
%%
%% Python runs on threads of its own, never on a scheduler. A call waits in an ordinary `receive'
%% until its answer comes; when its process dies or the call times out, the Python code gets the
%% exception `erlang.CallCancelled'.
%%
%% Terms are converted as the table in the documentation says. A result that no term stands for is
%% returned as an opaque reference to the Python object: passed back to Python it is that very
%% object, and in place of a module its methods can be called.
-module(py).

-export([call/3, call/4, call/5, eval/1, eval/2, eval/3, exec/1, exec/2, info/0]).
-export_type([target/0, name/0, kwargs/0, options/0, error/0]).

-type name() :: atom() | binary() | string().
%% A name in Python; a dotted path where a function is meant.
-type object() :: reference().
%% An opaque Python object, from the result of an earlier call.
-type target() :: name() | object().
-type kwargs() :: #{name() => term()}.
-type options() :: #{timeout => timeout(), binaries => bytes | str}.
%% `timeout' in milliseconds, `infinity' by default; `binaries' says as what Python sees binaries,
%% `bytes' by default (or what the application environment says).
-type error() :: {Name :: atom() | binary(), Message :: binary(), Traceback :: [binary()]}
               | timeout | overloaded | not_running | enomem | bad_result.
%% A Python exception (its name is an atom only where that exists already), or: the time is over;
%% all workers are busy and the queue is full; the application does not run or stops; memory is short;
%% the result is no term (two keys of a dict are one in Erlang, or a fun of Erlang's that holds a map
%% of more than 128 entries would be made outside of Erlang).

-define(FUNCTION, 0).
-define(EVAL, 1).
-define(EXEC, 2).

%% @equiv call(Target, Function, Args, #{}, #{})
-spec call(target(), name(), [term()]) -> {ok, term()} | {error, error()}.
call(Target, Function, Args) ->
    call(Target, Function, Args, #{}, #{}).

%% @equiv call(Target, Function, Args, Kwargs, #{})
-spec call(target(), name(), [term()], kwargs()) -> {ok, term()} | {error, error()}.
call(Target, Function, Args, Kwargs) ->
    call(Target, Function, Args, Kwargs, #{}).

%% @doc Calls a function of a module, which is imported first, or a method of an object.
-spec call(target(), name(), [term()], kwargs(), options()) -> {ok, term()} | {error, error()}.
call(Target, Function, Args, Kwargs, Options)
  when is_list(Args), is_map(Kwargs), is_map(Options) ->
    request(?FUNCTION, beamloop_call:function(Target, Function, Args, Kwargs), Options);
call(Target, Function, Args, Kwargs, Options) ->
    erlang:error(badarg, [Target, Function, Args, Kwargs, Options]).

%% @equiv eval(Expression, #{}, #{})
-spec eval(name()) -> {ok, term()} | {error, error()}.
eval(Expression) ->
    eval(Expression, #{}, #{}).

%% @equiv eval(Expression, Locals, #{})
-spec eval(name(), kwargs()) -> {ok, term()} | {error, error()}.
eval(Expression, Locals) ->
    eval(Expression, Locals, #{}).

%% @doc The value of an expression, in the namespace of `__main__' with these local names besides.
-spec eval(name(), kwargs(), options()) -> {ok, term()} | {error, error()}.
eval(Expression, Locals, Options) when is_map(Locals), is_map(Options) ->
    request(?EVAL, {beamloop_call:name(Expression), beamloop_call:named(Locals)}, Options);
eval(Expression, Locals, Options) ->
    erlang:error(badarg, [Expression, Locals, Options]).

%% @equiv exec(Code, #{})
-spec exec(name()) -> ok | {error, error()}.
exec(Code) ->
    exec(Code, #{}).

%% @doc Runs statements in the namespace of `__main__', which all calls share: a function that is
%% defined here can be called as `call('__main__', Name, Args)'.
-spec exec(name(), options()) -> ok | {error, error()}.
exec(Code, Options) when is_map(Options) ->
    request(?EXEC, beamloop_call:name(Code), Options);
exec(Code, Options) ->
    erlang:error(badarg, [Code, Options]).

%% @doc Counters of what lives: calls, workers, opaque objects, references that wait to be dropped;
%% and of the atoms that Python has made.
-spec info() -> #{atom() => atom() | non_neg_integer()}.
info() ->
    beamloop_nif:nif_info().

-spec request(0..2, term(), options()) -> ok | {ok, term()} | {error, error()}.
request(Kind, Request, Options) ->
    {Timeout, Flags} = beamloop_call:options(Options),
    beamloop_call:call(Kind, Request, Flags, default, Timeout).
