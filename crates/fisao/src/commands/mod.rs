pub mod pretrain;
